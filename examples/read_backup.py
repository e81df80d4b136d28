#!/usr/bin/env python3
"""Verify a documented backup, and decrypt it, with nothing but docs/BACKUP-FORMAT.md.

  read_backup.py BACKUP [--key-file FILE] [--out DIR]

BACKUP is the folder that holds manifest.json. The vault key is the first line of FILE, or NODYN_VAULT_KEY, or
LYNOX_VAULT_KEY. With --out the plain files are written there, into a folder that must not exist yet. It needs Python 3.9
and the package `cryptography`, which it uses for AES-256-GCM alone, and reads each file into memory. Exit code 0: all of
it is as the manifest says; 1: it is not, and the faults are named.
"""
import argparse, hashlib, hmac, json, os, re, sqlite3, sys
from pathlib import Path

DIALECTS = {"nodyn_dir": b"nodyn-backup", "lynox_dir": b"lynox-backup"}
MAC_INFO = b"nbak v1 manifest mac"


def hkdf(salt, secret, info):
    """RFC 5869 with SHA-256, 32 bytes: one block of output."""
    return hmac.new(hmac.new(salt, secret, hashlib.sha256).digest(), info + b"\x01", hashlib.sha256).digest()


def text(value):
    raw = value.encode()
    return len(raw).to_bytes(8, "little") + raw


def number(value, size):
    return b"\x00" if value is None else b"\x01" + value.to_bytes(size, "little", signed=size == 8)


def mac_input(manifest, field):
    own = manifest["nbak"]
    parts = [text("nbak v1 manifest mac"), text(manifest["version"]), text(manifest["created_at"])]
    parts += [text(field.removesuffix("_dir")), text(manifest[field]), bytes([manifest["encrypted"]])]
    parts += [text(own["snapshot"]), text(own["mac_key"]), bytes.fromhex(own["mac_salt"]), text(manifest["checksum"])]
    parts.append(len(manifest["files"]).to_bytes(8, "little"))
    for entry in manifest["files"]:
        parts += [text(entry["path"]), entry["size_bytes"].to_bytes(8, "little"), text(entry["checksum_sha256"])]
        parts += [text(entry["type"]), number(entry.get("mode"), 4), number(entry.get("mtime_ms"), 8)]
    if "instance" in own:
        parts.append(b"\x02" + bytes.fromhex(own["instance"]))
    if own.get("before_restore"):
        parts.append(b"\x01")
    return b"".join(parts)


def lacks_hold(own):
    salt, lacks = bytes.fromhex(own["mac_salt"]), own.get("lacks", [])
    is_marked = salt[12:20] == hashlib.sha256(text("nbak v1 incomplete backup") + salt[:12]).digest()[:8]
    count = own.get("lacks_count", 0)
    if count == 0:
        return not is_marked
    parts = [text("nbak v1 lacks of a backup"), salt[:12], count.to_bytes(8, "little"), len(lacks).to_bytes(8, "little")]
    parts += [text(word) for entry in lacks for word in entry]
    return is_marked and salt[20:] == hashlib.sha256(b"".join(parts)).digest()[:12]


def open_nbak(data, key):
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    if data[:5] != b"NBAK\x01" or len(data) < 33:
        raise ValueError("not an NBAK file of version 1")
    nonce, tag, ciphertext = data[5:17], data[17:33], data[33:]
    return AESGCM(key).decrypt(nonce, ciphertext + tag, None)


def read(folder, key, out):
    faults = []
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    field = next(name for name in DIALECTS if name in manifest)
    salt = DIALECTS[field]
    files = [entry for entry in manifest["files"] if entry["type"] in ("file", "sqlite")]
    for entry in manifest["files"]:
        path = entry["path"]
        if path.startswith("/") or re.match(r"^[A-Za-z]:", path) or set(path.split("/")) & {"", ".", ".."} or "\\" in path:
            return [f"{path!r}: a path that leads out of the backup"]
    for entry in files:
        name = entry["path"]
        try:
            data = (folder / name).read_bytes()
            if len(data) != entry["size_bytes"] or hashlib.sha256(data).hexdigest() != entry["checksum_sha256"]:
                raise ValueError("size or SHA-256 is not the manifest's")
            if manifest["encrypted"]:
                if key is None:
                    continue
                data = open_nbak(data, hkdf(salt, key, salt + b"-encryption"))
            if out:
                (out / name).parent.mkdir(parents=True, exist_ok=True)
                (out / name).write_bytes(data)
                if entry["type"] == "sqlite":
                    check = sqlite3.connect(out / name).execute("PRAGMA integrity_check").fetchone()[0]
                    if check != "ok":
                        raise ValueError(f"integrity_check: {check}")
        except Exception as error:
            faults.append(f"{name}: {str(error) or type(error).__name__}")
    for entry in manifest["files"]:
        if out and entry["type"] not in ("file", "sqlite"):
            (out / entry["path"]).mkdir(parents=True, exist_ok=True)
    sums = sorted(entry["checksum_sha256"] for entry in files)
    if hashlib.sha256(":".join(sums).encode()).hexdigest() != manifest["checksum"]:
        faults.append("manifest.json: the overall checksum is not that of its files")
    own = manifest.get("nbak")
    if own and not lacks_hold(own):
        faults.append("manifest.json: what it says that the backup lacks was changed")
    for path, reason in (own or {}).get("lacks", []):
        print(f"not in the backup: {path!r}: {reason!r}")
    if own and own["mac_key"] == "vault" and key is not None:
        mac = hmac.new(hkdf(bytes.fromhex(own["mac_salt"]), key, MAC_INFO), mac_input(manifest, field), hashlib.sha256)
        if not hmac.compare_digest(mac.hexdigest(), own["mac"]):
            faults.append("manifest.json: its MAC is not valid under this key")
        print("MAC checked")
    print(f"{len(files)} files, encrypted: {manifest['encrypted']}, opened: {not manifest['encrypted'] or key is not None}")
    return faults


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("backup", type=Path)
    parser.add_argument("--key-file", type=Path)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    key = os.environ.get("NODYN_VAULT_KEY") or os.environ.get("LYNOX_VAULT_KEY")
    if args.key_file:
        key = args.key_file.read_text().splitlines()[0].strip()
    if args.out:
        try:
            args.out.mkdir(mode=0o700)
        except OSError as error:
            parser.error(f"--out must be a new folder: {error}")
    faults = read(args.backup, key.encode() if key else None, args.out)
    for fault in faults:
        print(f"fault: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
