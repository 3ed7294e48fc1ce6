//! The control socket, both ways: any line is a request or a message, or is refused in one line.
#![no_main]

use ebpf_manager::control::{Message, Request};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Err(e) = Request::parse(data) {
        let said = serde_json::to_string(&e.to_string()).expect("text is JSON");
        assert!(said.len() < 8192, "{} bytes of answer", said.len());
    }
    if let Ok(line) = std::str::from_utf8(data) {
        let _ = Message::parse(line);
    }
});
