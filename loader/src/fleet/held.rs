//! Asking the bridge, after a restart, which flows it has on record. Until it has said so nothing is handed
//! over: what it says is then of the loader before, and of nobody else.

use crate::{export::runtime, session::Flows};
use abi::VERDICTS;
use std::{collections::HashMap, io, thread, time::Duration};
use tokio::sync::oneshot::{Receiver, channel, error::TryRecvError};
use wire::{Backoff, Endpoint, Held, held};

/// Pauses between two questions.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];

/// Flows on record, by slot.
pub(super) type OnRecord = HashMap<u32, Flows>;

/// A question that is under way.
pub(super) struct Asking(Receiver<OnRecord>);

/// What has come of it.
pub(super) enum Answer {
    Waits,
    Here(OnRecord),
    /// Nobody asks any more.
    Broken,
}

impl Asking {
    /// Asks about this boot until there is an answer, on a thread of its own.
    pub(super) fn start(bridge: Endpoint, boot: String) -> io::Result<Self> {
        let (mut told, answer) = channel();
        let asks = move || -> io::Result<()> {
            runtime()?.block_on(async {
                tokio::select! {
                    held = ask(&bridge, &boot) => drop(told.send(held)),
                    // Whoever wanted to know has ended.
                    () = told.closed() => {}
                }
            });
            Ok(())
        };
        thread::Builder::new().name("held".to_owned()).spawn(asks)?;
        Ok(Self(answer))
    }

    pub(super) fn answer(&mut self) -> Answer {
        match self.0.try_recv() {
            Ok(held) => Answer::Here(held),
            Err(TryRecvError::Empty) => Answer::Waits,
            Err(TryRecvError::Closed) => Answer::Broken,
        }
    }
}

async fn ask(bridge: &Endpoint, boot: &str) -> OnRecord {
    let [first, longest] = PAUSES;
    let mut backoff = Backoff::new(first, longest);
    let mut said = false;
    loop {
        match held::ask(bridge, boot).await {
            Ok(held) => return by_slot(&held),
            Err(e) => {
                if !said {
                    said = true;
                    tracing::warn!("{e}; records are held back until it does");
                    anstream::eprintln!("warning: {e}; records are held back until it does");
                }
                tokio::time::sleep(backoff.wait(None)).await;
            }
        }
    }
}

fn by_slot(held: &[Held]) -> OnRecord {
    let mut all = OnRecord::new();
    for one in held {
        let verdict = crate::record::VERDICTS
            .iter()
            .position(|v| *v == one.verdict);
        if let Some(at) = verdict {
            all.entry(one.slot).or_insert([0; VERDICTS])[at] += one.flows;
        }
    }
    all
}
