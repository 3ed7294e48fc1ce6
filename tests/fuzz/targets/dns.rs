//! DNS messages as the packet programs read them: every loop ends, a name comes out as it would have
//! to be spelled to be asked for, and every learned address stands in the message.
#![no_main]

use bpf::dns::{
    AnswerScan, DONE, HEADER, MAX_ANSWER, MAX_STEPS, NameScan, Step, TEXT, answer_step, is_answer,
    is_query, name_step, query_ends_well, reverse_step,
};
use libfuzzer_sys::fuzz_target;
use std::net::Ipv6Addr;

fuzz_target!(|data: &[u8]| {
    let len = data.len().min(MAX_ANSWER);
    // What is behind the message is what an earlier one left there.
    let mut message = [0xaa; MAX_ANSWER];
    message[..len].copy_from_slice(&data[..len]);
    let mut text = [0; TEXT];
    let mut question = NameScan::new(HEADER, len as u32);
    let mut steps = 0;
    while name_step(&message, &mut text, &mut question) {
        steps += 1;
        assert!(steps <= TEXT + 128, "a name without end");
    }
    if question.state != DONE {
        return;
    }
    name_is_plain(&text, &question);
    if is_query(&message, len as u32) && query_ends_well(&message, &question) {
        assert!(len >= HEADER as usize + 5, "a query shorter than its parts");
    }
    if is_answer(&message, len as u32) {
        answer_is_in(&message[..len], &message, &question);
    }
});

/// Lower case, no empty label, nothing in a label that would look like another name, and the same
/// backwards.
fn name_is_plain(text: &[u8; TEXT], question: &NameScan) {
    let len = question.len as usize;
    let name = &text[..len];
    assert!(name.iter().all(u8::is_ascii_graphic), "{name:?}");
    assert!(!name.iter().any(u8::is_ascii_uppercase), "{name:?}");
    assert!(
        len == 0 || name.split(|b| *b == b'.').all(|label| !label.is_empty()),
        "{name:?}"
    );
    let mut reversed = [0; abi::NAME_BYTES];
    for i in 0..question.len {
        reverse_step(text, question.len, i, &mut reversed);
    }
    let mut back = name.to_vec();
    back.reverse();
    let kept = len.min(abi::NAME_BYTES);
    assert_eq!(&reversed[..kept], &back[..kept]);
}

fn answer_is_in(message: &[u8], padded: &[u8; MAX_ANSWER], question: &NameScan) {
    let mut scan = AnswerScan::new(padded, question);
    for _ in 0..MAX_STEPS {
        match answer_step(padded, &mut scan) {
            Step::More => {}
            Step::Address(ip, _) => assert!(is_in(message, &ip.0), "{ip:?} is in no record"),
            Step::End | Step::Broken => return,
        }
    }
}

/// Whether an address stands in the message in one of its spellings: the address of nobody is loopback.
fn is_in(message: &[u8], ip: &[u8; 16]) -> bool {
    let address = Ipv6Addr::from(*ip).to_canonical();
    let mut spellings = vec![ip.to_vec(), ip[12..].to_vec()];
    if address.is_loopback() {
        spellings.extend([vec![0; 16], vec![0; 4]]);
    }
    spellings
        .iter()
        .any(|s| message.windows(s.len()).any(|w| w == s))
}
