//! The control socket, both ways: any line is a request or a message, or is refused in one line. An order
//! that gets through has bounds, and says the same when it is passed on.
#![no_main]

use ebpf_manager::control::{Message, Request};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    match Request::parse(data) {
        Err(e) => {
            let said = serde_json::to_string(&e.to_string()).expect("text is JSON");
            assert!(said.len() < 8192, "{} bytes of answer", said.len());
        }
        Ok(request) => {
            if let Request::Order(order) = &request {
                assert!(order.check().is_ok(), "{order:?}");
            }
            let line = request.line();
            assert_eq!(line.matches('\n').count(), 1, "{line:?}");
            assert_eq!(Request::parse(line.trim_end().as_bytes()), Ok(request));
        }
    }
    if let Ok(line) = std::str::from_utf8(data) {
        let _ = Message::parse(line);
    }
});
