//! What comes into the build: each crate's source and licence, held against `deny.toml` in every run of the tests.
//!
//! `cargo deny check` does this and more (advisories, above all), and is a tool that somebody has to install. What it
//! says of sources, licences and wildcards needs nothing but what cargo knows, so that is asked here too.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;
use spdx::{Expression, Licensee};

const DENY: &str = include_str!("../deny.toml");
const LOCK: &str = include_str!("../Cargo.lock");
const SECURITY: &str = include_str!("../docs/SECURITY.md");
const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// What cargo says.
fn cargo(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO")).args(args).current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// The packages of a build on this platform, as cargo describes them. Those of others need not have been downloaded.
fn packages() -> Vec<Value> {
    let version = cargo(&["--version", "--verbose"]);
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).expect("a platform");
    let args =
        ["metadata", "--locked", "--offline", "--format-version", "1", "--all-features", "--filter-platform", host];
    let all: Value = serde_json::from_str(&cargo(&args)).expect("JSON");
    all["packages"].as_array().expect("packages").clone()
}

/// The strings of the list called `name` in `deny.toml`.
fn list(name: &str) -> Vec<String> {
    let begin = format!("\n{name} = [");
    let (_, rest) = DENY.split_once(&begin).unwrap_or_else(|| panic!("deny.toml has no list `{name}`"));
    let (inside, _) = rest.split_once(']').expect("an end");
    let lines = inside.lines().map(|line| line.split('#').next().unwrap_or_default());
    lines.flat_map(|line| line.split('"').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()).collect()
}

fn text<'v>(package: &'v Value, field: &str) -> &'v str {
    package[field].as_str().unwrap_or_default()
}

/// Whether `licence`, as a manifest states it, can be had under what is `allowed`.
fn is_allowed(licence: &str, allowed: &[Licensee]) -> Result<bool, String> {
    // Before expressions, alternatives had a slash between them.
    let expression =
        Expression::parse(&licence.replace('/', " OR ")).map_err(|error| format!("{licence:?}: {error}"))?;
    Ok(expression.evaluate(|wanted| allowed.iter().any(|one| one.satisfies(wanted))))
}

fn allowed() -> Vec<Licensee> {
    let names = list("allow");
    assert!(names.len() > 5, "{names:?}");
    names.iter().map(|name| Licensee::parse(name).unwrap_or_else(|error| panic!("{name}: {error}"))).collect()
}

#[test]
fn every_crate_has_a_licence_that_is_allowed() {
    let (allowed, mut wrong) = (allowed(), Vec::new());
    let packages = packages();
    assert!(packages.len() > 100, "{} are too few to mean anything", packages.len());
    for package in &packages {
        match is_allowed(text(package, "license"), &allowed) {
            Ok(true) => {}
            Ok(false) => wrong.push(format!("{}: {}", text(package, "name"), text(package, "license"))),
            Err(error) => wrong.push(format!("{}: {error}", text(package, "name"))),
        }
    }
    assert!(wrong.is_empty(), "not allowed by deny.toml:\n{}", wrong.join("\n"));
}

#[test]
fn every_crate_comes_from_the_public_registry() {
    assert_eq!(list("allow-registry"), [CRATES_IO.trim_start_matches("registry+")]);
    let crates: Vec<&str> = LOCK.split("\n[[package]]\n").skip(1).collect();
    assert!(crates.len() > 100, "{} are too few to mean anything", crates.len());
    let own = format!("name = \"{}\"\n", env!("CARGO_PKG_NAME"));
    let source = format!("\nsource = \"{CRATES_IO}\"\nchecksum = \"");
    let wrong: Vec<&str> = crates.into_iter().filter(|one| !one.starts_with(&own) && !one.contains(&source)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The package that is built here.
fn own() -> Value {
    packages().into_iter().find(|package| text(package, "name") == env!("CARGO_PKG_NAME")).expect("this one")
}

#[test]
fn no_dependency_may_be_of_any_version() {
    let own = own();
    let needs = own["dependencies"].as_array().expect("a list").iter();
    let wrong: Vec<&str> = needs.filter(|need| text(need, "req") == "*").map(|need| text(need, "name")).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// Why it is here, and who keeps it.
#[test]
fn every_dependency_is_accounted_for() {
    let (_, section) = SECURITY.split_once("\n## Dependencies\n").expect("a section");
    let section = section.split("\n## ").next().unwrap_or_default();
    let named: BTreeSet<&str> = section.split('`').skip(1).step_by(2).collect();
    let own = own();
    let needs = own["dependencies"].as_array().expect("a list");
    let missing: Vec<&str> = needs.iter().map(|need| text(need, "name")).filter(|name| !named.contains(name)).collect();
    assert!(missing.is_empty(), "docs/SECURITY.md does not say why these are here: {missing:?}");
}

/// The judge itself.
#[test]
fn alternatives_and_all_of_them() {
    let allowed = allowed();
    for (licence, answer) in [
        ("MIT", true),
        ("MIT/Apache-2.0", true),
        ("GPL-3.0-only OR MIT", true),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
        ("GPL-3.0-only", false),
        ("MIT AND GPL-3.0-only", false),
        ("MPL-2.0", false),
        ("Apache-2.0 WITH LLVM-exception", true),
    ] {
        assert_eq!(is_allowed(licence, &allowed), Ok(answer), "{licence}");
    }
    assert!(is_allowed("", &allowed).is_err() && is_allowed("something of our own", &allowed).is_err());
}
