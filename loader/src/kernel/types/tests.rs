use super::*;

/// Name, bytes, members: name, type, offset.
type Struct<'a> = (&'a str, usize, &'a [(&'a str, u32, usize)]);

/// A number of four bytes, one of eight, an array of three of the former, and structures of these.
fn types(structs: &[Struct<'_>]) -> Types {
    let mut all = vec![
        Kind::Other,
        Kind::Plain(4),
        Kind::Plain(8),
        Kind::Array { of: 1, len: 3 },
        Kind::Alias(1),
    ];
    all.extend(structs.iter().map(|(name, size, members)| {
        Kind::Struct {
            name: (*name).to_owned(),
            size: *size,
            members: members
                .iter()
                .map(|(n, of, at)| ((*n).to_owned(), *of, *at))
                .collect(),
        }
    }));
    Types(all)
}

#[test]
fn fields_are_found_by_name_wherever_they_are() {
    let old = types(&[
        ("inner", 8, &[("x", 1, 0), ("y", 1, 4)]),
        (
            "S",
            32,
            &[("a", 1, 0), ("gone", 1, 4), ("list", 3, 8), ("in", 5, 20)],
        ),
    ]);
    let new = types(&[
        ("inner", 12, &[("y", 4, 0), ("x", 2, 4)]),
        (
            "S",
            44,
            &[("fresh", 2, 0), ("in", 5, 8), ("a", 2, 20), ("list", 3, 28)],
        ),
    ]);
    let words: Vec<u8> = (1..=8u32).flat_map(u32::to_le_bytes).collect();
    let there = Translation::new(&old, &new, "S").unwrap();
    assert_eq!(there.from, 32);
    let got: Vec<u32> = there
        .bytes(&words)
        .unwrap()
        .chunks_exact(4)
        .map(|w| u32::from_le_bytes(w.try_into().unwrap()))
        .collect();
    // fresh, in.y, in.x in eight bytes, a in eight bytes, the list.
    assert_eq!(got, [0, 0, 7, 6, 0, 1, 0, 3, 4, 5, 0]);
    assert_eq!(there.bytes(&words[..20]), None, "half a value");
    assert_eq!(old.field("S", "in"), Some(20));
    assert_eq!(new.field("S", "gone"), None);
    assert!(Translation::new(&old, &new, "T").is_none());
}

#[test]
fn the_same_layout_is_one_move() {
    let one = types(&[("S", 20, &[("a", 1, 0), ("b", 1, 4), ("c", 3, 8)])]);
    let same = Translation::new(&one, &one, "S").unwrap();
    assert_eq!(same.moves, [(0, 0, 20)]);
}

#[test]
fn a_type_that_contains_itself_ends() {
    let mut round = types(&[("S", 8, &[("s", 5, 0)])]);
    round.0.push(Kind::Alias(6));
    let _ = Translation::new(&round, &round, "S").unwrap();
    assert!(matches!(round.get(6), Kind::Other));
}
