//! Delta segments, written by hand: read back right, and right under damage.
//!
//! Nothing writes them yet; readers understand them from the first day.

use super::*;

/// Versions of one file, each in a pack of its own that builds on the one before.
fn versions(forge: &Forge, count: u8) -> (Vec<PackId>, Vec<Vec<u8>>) {
    let mut plain = noise(1, 8192);
    let (mut packs, mut plains, mut below): (Vec<PackId>, Vec<Vec<u8>>, _) = (vec![], vec![], Vec::new());
    let mut files = vec![];
    for n in 0..count {
        plain[usize::from(n) * 100] ^= 0x55;
        // Two chunks a version, as pages are.
        let chunks: Vec<(ChunkId, Vec<u8>)> =
            plain.chunks(4096).map(|bytes| (forge.keys.chunk_id(bytes), bytes.to_vec())).collect();
        let fresh: Vec<&(ChunkId, Vec<u8>)> = chunks.iter().filter(|chunk| !below.contains(*chunk)).collect();
        let mut sink = forge.sink();
        let on: Vec<(ChunkId, &[u8])> =
            below.iter().map(|(id, bytes): &(_, Vec<u8>)| (*id, bytes.as_slice())).collect();
        let segment = fresh.iter().map(|(id, bytes)| chunk(*id, bytes)).collect();
        let joined: Vec<u8> = fresh.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
        let length = joined.len();
        sink.add_segment(Segment::Data, segment, joined, base(&on, n)).expect("added");
        let stored = sink.flush().expect("flushed").keep().expect("kept");
        if n > 0 {
            let saved = stored[0].footer.segments[0].stored as usize;
            assert!(saved < length / 10, "{saved} of {length}: no delta");
        }
        packs.push(stored[0].id);
        let content = Content::Chunks(chunks.iter().map(|(id, bytes)| (bytes.len() as u32, *id)).collect());
        files.push(file(format!("v{n:02}").as_bytes(), plain.len() as u64, content));
        plains.push(plain.clone());
        below = chunks;
    }
    let (root, (_, tree, form)) = forge.directory(files);
    forge.commit(&[(Segment::Tree, tree, form)], root);
    (packs, plains)
}

#[test]
fn a_delta_segment_is_read_back() {
    let forge = Forge::new();
    let (_, plains) = versions(&forge, 17);
    assert_eq!(forge.check(), Vec::<String>::new());
    forge.place.ok(&["check", "--read-data"]);
    let (run, target) = forge.place.restore("latest", "target");
    assert_eq!(run.code, 0, "{run:?}");
    for (n, plain) in plains.iter().enumerate() {
        let name = format!("v{n:02}");
        assert_eq!(&fs::read(target.join(&name)).expect("restored"), plain);
        assert_eq!(&forge.place.ok(&["cat", "latest", &name]).raw, plain);
    }
}

#[test]
fn a_base_that_is_missing_or_damaged_takes_what_builds_on_it() {
    for (lost, gone) in [(0usize, true), (2, true), (0, false), (2, false), (4, false)] {
        let forge = Forge::new();
        let (packs, plains) = versions(&forge, 5);
        let path = forge.place.repo.join(Key::new(Kind::Pack, packs[lost].0).to_string());
        if gone {
            fs::remove_file(&path).expect("removed");
        } else {
            let mut bytes = fs::read(&path).expect("read");
            bytes[80] ^= 1;
            fs::write(&path, bytes).expect("written");
        }
        let (run, target) = forge.place.restore("latest", "target");
        assert_eq!(run.code, 13, "{run:?}");
        let check = forge.place.run(&["check", "--read-data"]);
        assert_eq!(check.code, 13, "{check:?}");
        for (n, plain) in plains.iter().enumerate() {
            let name = format!("v{n:02}");
            let dead = n >= lost;
            assert_eq!(run.err.contains(&format!("not restored: {name}:")), dead, "{name}: {run:?}");
            assert_eq!(check.out.lines().any(|line| line.trim() == name), dead, "{name}: {check:?}");
            assert_eq!(fs::read(target.join(&name)).ok().as_ref(), (!dead).then_some(plain), "{name}");
        }
        if gone {
            let plain_check = forge.place.run(&["check"]);
            assert_eq!(plain_check.code, 13, "{plain_check:?}");
            assert!(plain_check.out.contains(&format!("v{:02}", plains.len() - 1)), "by the footers: {plain_check:?}");
        }
    }
}
