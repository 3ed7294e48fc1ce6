//! One entrance: takes a request from its first byte to its answer. How much may be in hand at each step
//! is bounded, and each entrance has its own bounds: whoever floods one does not close the other.

use super::{
    Bounds, Counters,
    book::Book,
    clock,
    refused::Refused,
    speech::{Accepted, Signal, Speech, from_json},
};
use crate::{
    incoming::{BatchId, Keeper},
    reason::{classed, reason},
    stamp::{self, Context, Entrance, Limits, Malformed, Reception, Series, Tally},
};
use axum::{body::Body, response::Response};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use lease::BootTime;
use prost::bytes::Bytes;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::{
    sync::{OwnedRwLockReadGuard, OwnedSemaphorePermit, RwLock, Semaphore},
    task::spawn_blocking,
    time::timeout,
};
use wire::{Client, Outcome, Payload, batch_id::HEADER};

/// Bytes that one permit for waiting stands for.
const UNIT: usize = 1024;

/// What every entrance shares.
pub(super) struct House<K> {
    pub(super) keeper: Arc<K>,
    pub(super) book: Arc<Book>,
    pub(super) counters: Arc<Counters>,
    pub(super) limits: Limits,
    pub(super) bounds: Bounds,
    /// Label sets that containers have used.
    pub(super) series: Mutex<Series>,
    /// Where metrics go.
    pub(super) metrics: Option<Client>,
}

/// An entrance.
pub(super) struct Door<K> {
    pub(super) house: Arc<House<K>>,
    entrance: Entrance,
    reading: Arc<Semaphore>,
    json: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    keeping: Arc<Semaphore>,
    /// Held for reading by every request of logs until what it brought is on the disk or will never be.
    passing: Arc<RwLock<()>>,
}

/// What the stamper makes of a request, for the work that comes after it.
enum Work {
    /// The leases are not known to be complete up to here.
    Ahead(BootTime),
    Kept(Accepted, Tally),
    /// Metrics, to be passed on.
    Metrics(Payload, Tally),
}

impl<K: Keeper> Door<K> {
    pub(super) fn new(house: Arc<House<K>>, entrance: Entrance) -> Self {
        let bounds = house.bounds;
        let permits = |n| Arc::new(Semaphore::new(n));
        Self {
            house,
            entrance,
            reading: permits(bounds.reading),
            json: permits(1),
            waiting: permits(bounds.waiting_bytes / UNIT),
            keeping: permits(bounds.keeping),
            passing: Arc::default(),
        }
    }

    /// Waits until every request of logs that is being handled is over. What is on the disk then is all
    /// that those will ever have brought whose sender has died.
    pub(super) async fn settle(&self) {
        drop(self.passing.write().await);
    }

    /// Answers a request.
    pub(super) async fn export(
        &self,
        signal: Signal,
        speech: Speech,
        request: Request<Body>,
    ) -> Response {
        let answer = self.take(signal, speech, request).await;
        self.house.counters.change(|counts| match &answer {
            Ok((_, tally)) => {
                counts.accepted += 1;
                counts.tally.add(tally);
            }
            Err(refused) if refused.is_put_off() => counts.put_off += 1,
            Err(_) => counts.refused += 1,
        });
        match answer {
            Ok((accepted, _)) => speech.accept(signal, accepted),
            Err(refused) => speech.refuse(&refused),
        }
    }

    async fn take(
        &self,
        signal: Signal,
        speech: Speech,
        request: Request<Body>,
    ) -> Result<(Accepted, Tally), Refused> {
        let batch = self.batch(signal, request.headers())?;
        let passing = Arc::new(Arc::clone(&self.passing).read_owned().await);
        let (message, _charge) = self.read(signal, speech, request).await?;
        // When it was whole: whoever sends slowly gains nothing.
        let reading = clock::reading();
        self.house.book.observe(reading);
        let received = clock::reception(reading);
        let work = self
            .work(signal, &message, &batch, (received, true), &passing)
            .await?;
        let work = match work {
            Work::Ahead(at) => {
                self.house
                    .book
                    .complete(at, self.house.bounds.patience)
                    .await;
                self.work(signal, &message, &batch, (received, false), &passing)
                    .await?
            }
            done => done,
        };
        match work {
            Work::Kept(accepted, tally) => Ok((accepted, tally)),
            Work::Metrics(payload, tally) => Ok((self.pass_on(&payload).await?, tally)),
            // It was told not to wait.
            Work::Ahead(_) => Err(Refused::Busy),
        }
    }

    /// The name of a request; only the loader's logs have one, and they must.
    fn batch(&self, signal: Signal, headers: &HeaderMap) -> Result<Option<BatchId>, Refused> {
        if self.entrance != Entrance::Loader || signal != Signal::Logs {
            return Ok(None);
        }
        let name = headers.get(HEADER).and_then(|value| value.to_str().ok());
        Ok(Some(name.unwrap_or_default().parse()?))
    }

    async fn permit(
        &self,
        from: &Arc<Semaphore>,
        n: usize,
    ) -> Result<OwnedSemaphorePermit, Refused> {
        let n = u32::try_from(n).map_err(|_| Refused::Busy)?;
        let permit = timeout(
            self.house.bounds.read_time,
            Arc::clone(from).acquire_many_owned(n),
        );
        // Nobody closes them.
        permit
            .await
            .map_err(|_| Refused::Busy)?
            .map_err(|_| Refused::Busy)
    }

    /// The whole message, with the right to hold it.
    async fn read(
        &self,
        signal: Signal,
        speech: Speech,
        request: Request<Body>,
    ) -> Result<(Bytes, OwnedSemaphorePermit), Refused> {
        let bounds = self.house.bounds;
        let limit = match speech {
            Speech::Json => bounds.json_bytes,
            Speech::Grpc | Speech::Protobuf => bounds.body_bytes,
        };
        let reading = self.permit(&self.reading, 1).await?;
        let (head, body) = request.into_parts();
        // Some more for the frame of gRPC: the message itself is measured again.
        let body = timeout(bounds.read_time, Limited::new(body, limit + UNIT).collect());
        let body = body.await.map_err(|_| Refused::Slow(bounds.read_time))?;
        let body = body.map_err(|e| match e.downcast_ref::<LengthLimitError>() {
            Some(_) => Refused::TooLarge(limit),
            None => Refused::Broken(e.to_string()),
        })?;
        let body = body.to_bytes();
        let unpack = move || speech.unpack(&head.headers, body, limit);
        let mut message = spawn_blocking(unpack).await.map_err(|_| Refused::Busy)??;
        if speech == Speech::Json {
            let _one = self.permit(&self.json, 1).await?;
            let convert = spawn_blocking(move || from_json(signal, &message));
            message = convert.await.map_err(|_| Refused::Busy)??;
        }
        let units = message.len().div_ceil(UNIT).max(1);
        let charge = self.permit(&self.waiting, units).await?;
        drop(reading);
        Ok((message, charge))
    }

    /// Stamps a request, and keeps it if it is one of logs.
    async fn work(
        &self,
        signal: Signal,
        message: &Bytes,
        batch: &Option<BatchId>,
        (received, may_wait): (Reception, bool),
        passing: &Arc<OwnedRwLockReadGuard<()>>,
    ) -> Result<Work, Refused> {
        let permit = self.permit(&self.keeping, 1).await?;
        let (house, entrance) = (Arc::clone(&self.house), self.entrance);
        let (message, batch) = (message.clone(), batch.clone());
        let passing = Arc::clone(passing);
        let work = spawn_blocking(move || {
            // It goes on when the sender has given up.
            let _until_then = (permit, passing);
            match signal {
                Signal::Logs => house.logs(entrance, &message, batch.as_ref(), received, may_wait),
                Signal::Metrics => Ok(house.metrics(entrance, &message, received, may_wait)?),
            }
        });
        let died = |_| Refused::Keep("the work on it ended half-way".to_owned());
        work.await.map_err(died)?
    }

    async fn pass_on(&self, payload: &Payload) -> Result<Accepted, Refused> {
        let client = self.house.metrics.as_ref().ok_or(Refused::NoMetrics)?;
        match client.send(payload).await {
            Outcome::Delivered => Ok(Accepted::default()),
            Outcome::Partial { rejected, message } => {
                let said = format!("the receiver threw away {rejected} data point(s)");
                Ok(Accepted {
                    rejected,
                    message: Some(classed(said, &message)),
                })
            }
            Outcome::Retry { after, failure } => Err(Refused::NotPassedOn {
                why: reason(&failure),
                after,
            }),
            Outcome::Refused(failure) => Err(Refused::NotTaken(reason(&failure))),
        }
    }
}

impl<K: Keeper> House<K> {
    fn stamped<T>(
        &self,
        entrance: Entrance,
        received: Reception,
        with: impl FnOnce(Context<'_>) -> T,
    ) -> T {
        with(Context {
            entrance,
            book: &self.book.read(),
            received,
            limits: &self.limits,
        })
    }

    fn logs(
        &self,
        entrance: Entrance,
        message: &[u8],
        batch: Option<&BatchId>,
        received: Reception,
        may_wait: bool,
    ) -> Result<Work, Refused> {
        let stamped = self.stamped(entrance, received, |context| stamp::logs(message, context))?;
        if let (true, Some(at)) = (may_wait, stamped.ahead) {
            return Ok(Work::Ahead(at));
        }
        let kept = self.keeper.keep(batch, &stamped.records);
        kept.map_err(|e| Refused::Keep(e.to_string()))?;
        let accepted = Accepted {
            rejected: stamped.tally.refused(),
            message: stamped.message(),
        };
        Ok(Work::Kept(accepted, stamped.tally))
    }

    fn metrics(
        &self,
        entrance: Entrance,
        message: &[u8],
        received: Reception,
        may_wait: bool,
    ) -> Result<Work, Malformed> {
        let mut stamped = self.stamped(entrance, received, |context| {
            stamp::metrics(message, context)
        })?;
        if let (true, Some(at)) = (may_wait, stamped.ahead) {
            return Ok(Work::Ahead(at));
        }
        // Only adds to sets and takes from them: neither is left half-way.
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        series.bound(&mut stamped, &self.book.read());
        drop(series);
        let payload = Payload {
            bytes: stamped.bytes.into(),
            records: stamped.tally.points,
        };
        Ok(Work::Metrics(payload, stamped.tally))
    }
}
