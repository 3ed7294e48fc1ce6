//! Embeds every file of `objects/`, after reading it as JSON: a file that is none ends the build, by name.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

/// All `.json` files below `dir`.
fn files(dir: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            files(&path, found)?;
        } else if path.extension().is_some_and(|e| e == "json") {
            found.push(path);
        }
    }
    Ok(())
}

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed=objects");
    let here = env::var("CARGO_MANIFEST_DIR").map_err(io::Error::other)?;
    let out = env::var("OUT_DIR").map_err(io::Error::other)?;
    let mut found = Vec::new();
    files(&Path::new(&here).join("objects"), &mut found)?;
    found.sort();
    let mut table = String::from("&[\n");
    for path in found {
        let name = path.display();
        serde_json::from_str::<serde_json::Value>(&fs::read_to_string(&path)?)
            .map_err(|e| io::Error::other(format!("{name}: {e}")))?;
        table += &format!("    include_str!({path:?}),\n");
    }
    table += "]\n";
    fs::write(Path::new(&out).join("objects.rs"), table)
}
