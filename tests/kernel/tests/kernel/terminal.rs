//! The terminal belongs to the command, and so do the keys that send signals.

use kernel_tests::{agent::code, eventually, policies::WEB, run::Bench, shell::Terminal};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;
use std::fs;

/// Whether a process is stopped, as `/proc` says it.
fn stopped(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name before it may have any character in it.
    stat.rsplit(") ").next().is_some_and(|s| s.starts_with('T'))
}

/// The number behind a word on the screen.
fn number(terminal: &mut Terminal, word: &str) -> i32 {
    let line = terminal.read();
    let said = line.strip_prefix(word).map(|n| n.trim().parse());
    said.unwrap_or_else(|| panic!("{line:?} instead of {word}"))
        .unwrap()
}

#[test]
fn the_key_that_stops_stops_all_and_the_job_goes_on_under_the_firewall() {
    let bench = Bench::new();
    let program = code(
        "assert os.isatty(0) and os.isatty(1) and os.isatty(2)\n\
         assert os.tcgetpgrp(0) == os.getpgrp()\n\
         say('up', os.getpid()); hear(); say(tcp('203.0.113.9', 80))",
    );
    let mut terminal = bench.terminal(WEB, &["python3", "-c", &program]);
    let command = number(&mut terminal, "up ");
    terminal.press("\u{1a}");
    let loader = number(&mut terminal, "stopped ");
    eventually("both to stop", || {
        (stopped(loader) && stopped(command)).then_some(())
    });
    kill(Pid::from_raw(-loader), Signal::SIGCONT).unwrap();
    terminal.press("go\n");
    assert_eq!(terminal.read(), "EPERM");
    assert_eq!(terminal.end(), Some(0));
    let records = bench.records();
    assert_eq!(records.len(), 1, "{records:#?}");
    assert_eq!(records[0]["verdict"], json!("DENIED"));
    bench.nothing_left(&[loader as u32]);
}

#[test]
fn the_keys_that_interrupt_reach_the_command_once() {
    let bench = Bench::new();
    let program = code(
        "got = []\n\
         for s in (signal.SIGINT, signal.SIGQUIT): signal.signal(s, lambda n, _: got.append(n))\n\
         def tell(n, _): say('got', *got); os._exit(len(got))\n\
         signal.signal(signal.SIGUSR2, tell); say('up', os.getpid())\n\
         while True: signal.pause()",
    );
    let mut terminal = bench.terminal(WEB, &["python3", "-c", &program]);
    number(&mut terminal, "up ");
    terminal.press("\u{3}");
    terminal.press("\u{1c}");
    // Passed on behind whatever else the loader might pass on: signals are read in order of number.
    let instance = bench.instance();
    let loader: i32 = instance.strip_prefix("run-").unwrap().parse().unwrap();
    kill(Pid::from_raw(loader), Signal::SIGUSR2).unwrap();
    assert_eq!(terminal.read(), "got 2 3");
    assert_eq!(terminal.end(), Some(2));
}
