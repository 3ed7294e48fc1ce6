use super::*;
use abi::DIRECTION_INGRESS;
use zerocopy::FromZeros;

const UP: u32 = TCP_SYN_SENT | TCP_ESTABLISHED;

fn flow(hints: u32) -> TcpFlow {
    let mut f = TcpFlow::new_zeroed();
    f.hints = hints;
    f
}

fn counts(acked: u64, received: u64) -> TcpCounts {
    let numbers = TcpCounts {
        snd_nxt: 1000,
        snd_una: 1000,
        rcv_nxt: 500,
        ..Default::default()
    };
    TcpCounts {
        acked,
        received,
        ..numbers
    }
}

#[test]
fn syn_and_fin_are_not_payload() {
    let mut f = flow(UP | TCP_FIN_OUT);
    f.fin_out = 999;
    f.fin_in = 499;
    f.fin_in_seen = 1;
    let c = counts(12, 21);
    assert_eq!((bytes_out(&f, &c), bytes_in(&f, &c)), (10, 20));
    f.flow.direction = DIRECTION_INGRESS;
    assert_eq!(bytes_out(&f, &c), 11);
}

#[test]
fn a_fin_that_was_not_sent_or_not_taken_is_not_subtracted() {
    let mut f = flow(UP | TCP_FIN_OUT);
    f.fin_out = 1000;
    f.fin_in = 700;
    f.fin_in_seen = 1;
    let c = counts(11, 20);
    assert_eq!((bytes_out(&f, &c), bytes_in(&f, &c)), (10, 20));
}

#[test]
fn what_is_in_flight_has_left() {
    let c = TcpCounts {
        snd_nxt: 5,
        snd_una: u32::MAX - 4,
        ..counts(1, 0)
    };
    assert_eq!(bytes_out(&flow(UP), &c), 10);
}

#[test]
fn counters_pass_four_gibibytes() {
    let c = counts((5 << 32) + 1, 6 << 32);
    assert_eq!(
        (bytes_out(&flow(UP), &c), bytes_in(&flow(UP), &c)),
        (5 << 32, 6 << 32)
    );
}

#[test]
fn a_flow_older_than_the_attachment_counts_from_its_first_packet() {
    let mut f = flow(TCP_ESTABLISHED);
    f.flow.flags = FLOW_MID_STREAM;
    f.mid[0] = counts(100, 50);
    (f.sent_end, f.arrived_end) = (1000, 500);
    let c = counts(150, 70);
    assert_eq!((bytes_out(&f, &c), bytes_in(&f, &c)), (50, 20));
    (f.sent_end, f.arrived_end) = (1003, 504);
    assert_eq!((bytes_out(&f, &c), bytes_in(&f, &c)), (53, 24));
}

#[test]
fn a_syn_counts_where_it_was_sent_and_never_as_a_byte() {
    let mut f = flow(UP);
    f.flow.flags = FLOW_MID_STREAM;
    // Taken over before the SYN left, and after.
    f.mid[0] = counts(0, 0);
    assert_eq!(bytes_out(&f, &counts(11, 0)), 10);
    f.mid[0] = counts(1, 0);
    assert_eq!(bytes_out(&f, &counts(11, 0)), 10);
}

#[test]
fn a_fin_counts_where_it_was_sent_and_never_as_a_byte() {
    let taken_over = |hints: u32, snd_nxt: u32| {
        let mut f = flow(hints);
        f.flow.flags = FLOW_MID_STREAM;
        f.mid[0] = TcpCounts {
            snd_nxt,
            snd_una: snd_nxt,
            ..counts(u64::from(snd_nxt) - 900, 0)
        };
        (f.sent_end, f.fin_out) = (snd_nxt, 999);
        f
    };
    // The kernel's counters at the end: 99 bytes and a FIN, up to 1000.
    let c = counts(100, 0);
    let closing = UP | TCP_CLOSING;
    // Of a FIN that was on its way when the flow was taken over, nothing but the count is seen.
    assert_eq!(bytes_out(&taken_over(closing, 999), &c), 0);
    assert_eq!(bytes_out(&taken_over(closing, 1000), &c), 0);
    assert_eq!(bytes_out(&taken_over(closing, 989), &c), 10);
    // One that is sent again is none of those that left since.
    assert_eq!(bytes_out(&taken_over(closing | TCP_FIN_OUT, 1000), &c), 0);
    assert_eq!(bytes_out(&taken_over(UP | TCP_FIN_OUT, 989), &c), 10);
}

#[test]
fn ends_are_told_apart() {
    let c = counts(1, 0);
    let reason = |hints: u32, old: u32, error: u32| close_reason(&flow(hints), &c, old, error);
    assert_eq!(reason(0, state::SYN_SENT, 0), close::UNREACHABLE);
    assert_eq!(
        reason(TCP_SYN_SENT, state::SYN_SENT, 113),
        close::UNREACHABLE
    );
    assert_eq!(
        reason(TCP_SYN_SENT, state::SYN_SENT, ECONNREFUSED),
        close::REFUSED
    );
    assert_eq!(
        reason(TCP_SYN_SENT, state::SYN_SENT, ETIMEDOUT),
        close::TIMEOUT
    );
    assert_eq!(reason(TCP_SYN_SENT, state::SYN_SENT, 0), close::TIMEOUT);
    assert_eq!(reason(UP, state::ESTABLISHED, ECONNRESET), close::RST);
    assert_eq!(reason(UP, state::CLOSE_WAIT, EPIPE), close::RST);
    assert_eq!(reason(UP, state::ESTABLISHED, 0), close::RST);
    assert_eq!(reason(UP, state::ESTABLISHED, ETIMEDOUT), close::TIMEOUT);
    assert_eq!(reason(UP, state::ESTABLISHED, 113), close::UNREACHABLE);
    assert_eq!(reason(UP, state::FIN_WAIT2, 0), close::FIN);
}

#[test]
fn an_old_error_does_not_rewrite_a_good_end() {
    let f = TcpFlow {
        fin_in: 499,
        fin_in_seen: 1,
        ..flow(UP | TCP_FIN_OUT)
    };
    assert_eq!(
        close_reason(&f, &counts(2, 1), state::LAST_ACK, ECONNRESET),
        close::FIN
    );
    assert_eq!(
        close_reason(&f, &counts(2, 1), state::ESTABLISHED, ECONNRESET),
        close::RST
    );
}
