//! Ring entries: any bytes of the right size become a record that is one JSON object and one line on a
//! terminal, in which the agent cannot move the cursor.
#![no_main]

use abi::FlowEvent;
use ebpf_manager::{
    record::{Context, Lookup, Owner},
    render::line,
};
use jiff::tz::TimeZone;
use libfuzzer_sys::fuzz_target;
use zerocopy::FromBytes as _;

struct Nothing;

impl Lookup for Nothing {
    fn name(&mut self, _: u32, hash: u64) -> Option<String> {
        (hash % 2 == 1).then(|| format!("n{hash}.example"))
    }

    fn rule(&mut self, _: u32, rule: u32) -> Option<String> {
        Some(format!("rules[{rule}]"))
    }
}

fuzz_target!(|data: &[u8]| {
    let Ok((event, rest)) = FlowEvent::read_from_prefix(data) else {
        return;
    };
    let offset = rest.first_chunk().map_or(0, |b| i64::from_ne_bytes(*b));
    let context = Context {
        owner: Owner::default(),
        boot: "boot".to_owned(),
        wall_offset: i128::from(offset),
        set: 9,
    };
    let record = context.ended(&event, &mut Nothing);
    let json = serde_json::to_string(&record).expect("a record is JSON");
    assert!(!json.contains('\n'));
    let back: serde_json::Value = serde_json::from_str(&json).expect("JSON is read back");
    assert_eq!(back["bytes_out"], event.tail.bytes_out);
    let style = line::verdict_style(record.verdict);
    let shown = line::line(&record, &TimeZone::UTC)
        .replace(&style.render().to_string(), "")
        .replace(&style.render_reset().to_string(), "");
    assert!(!shown.chars().any(char::is_control), "{shown:?}");
});
