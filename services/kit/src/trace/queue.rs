//! The bounded queue in front of the exporter, and what became of the spans: exported or lost.
//!
//! The SDK's own queue drops without a word what it has no room for. So the places in it are counted here, and what
//! finds none never gets there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use opentelemetry::Context;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor};
use prometheus_client::metrics::counter::Counter;

use super::Spans;

/// Spans that wait when nobody says how many: what the standard says.
pub(super) const PLACES: usize = 2_048;
/// Most that may be asked for: their places are allocated at once.
const MAX_PLACES: usize = 1_000_000;
/// So long no span may find the queue full before it is said that all is well.
const QUIET: Duration = Duration::from_secs(10);

/// The value of `OTEL_BSP_MAX_QUEUE_SIZE` as a number of spans, 1 to 1,000,000.
///
/// # Errors
/// A sentence that says what would be right.
pub(super) fn places(text: Option<&str>) -> Result<usize, String> {
    let Some(text) = text else { return Ok(PLACES) };
    let places = text.parse().ok().filter(|places| (1..=MAX_PLACES).contains(places));
    places.ok_or_else(|| format!("OTEL_BSP_MAX_QUEUE_SIZE is `{text}`; 1 to {MAX_PLACES} spans are right"))
}

/// What a log has a line for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// From now on spans are lost.
    Losing,
    /// From now on they are not.
    Well,
}

/// What becomes of the spans of this process. The queue and the exporter share it.
#[derive(Debug)]
pub(super) struct Fate {
    places: usize,
    waiting: AtomicUsize,
    losing: AtomicBool,
    /// When a span last found no place, in milliseconds since `began`, and one more; 0: never.
    full_at: AtomicU64,
    began: Instant,
    exported: Counter,
    lost: Counter,
}

impl Fate {
    /// None yet; so many may wait, and they are counted there.
    pub(super) fn new(places: usize, spans: &Spans) -> Arc<Self> {
        let counter = |result| spans.get_or_create(&[("result", result)]).clone();
        Arc::new(Self {
            places,
            waiting: AtomicUsize::new(0),
            losing: AtomicBool::new(false),
            full_at: AtomicU64::new(0),
            began: Instant::now(),
            exported: counter("exported"),
            lost: counter("lost"),
        })
    }

    /// A span wants a place.
    ///
    /// # Errors
    /// There is none, and the span is counted as lost; with what to log.
    fn enter(&self, now_ms: u64) -> Result<(), Option<Change>> {
        let place = self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |waiting| {
            (waiting < self.places).then_some(waiting + 1)
        });
        place.map(|_| ()).map_err(|_| {
            self.lost.inc();
            self.full_at.store(now_ms + 1, Ordering::Relaxed);
            self.begin_to_lose()
        })
    }

    /// The exporter has taken so many out of the queue.
    pub(super) fn taken(&self, count: usize) {
        self.waiting.fetch_sub(count, Ordering::Relaxed);
    }

    /// An export of so many spans has ended; what to log.
    pub(super) fn ended(&self, count: usize, failed: bool) -> Option<Change> {
        self.ended_at(count, failed, self.now_ms())
    }

    fn ended_at(&self, count: usize, failed: bool, now_ms: u64) -> Option<Change> {
        if failed {
            self.lost.inc_by(count as u64);
            return self.begin_to_lose();
        }
        self.exported.inc_by(count as u64);
        // A collector that is a little too slow would else be told of with each export.
        let full_at = self.full_at.load(Ordering::Relaxed);
        let quiet = full_at == 0 || now_ms.saturating_sub(full_at) >= QUIET.as_millis() as u64;
        (quiet && self.losing.swap(false, Ordering::Relaxed)).then_some(Change::Well)
    }

    fn begin_to_lose(&self) -> Option<Change> {
        (!self.losing.swap(true, Ordering::Relaxed)).then_some(Change::Losing)
    }

    fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }
}

/// Spans that have ended and wait for a thread that exports them.
#[derive(Debug)]
pub(super) struct Queue {
    inner: BatchSpanProcessor,
    fate: Arc<Fate>,
}

impl Queue {
    /// In front of `exporter`, which tells `fate` what it takes.
    pub(super) fn new(exporter: impl SpanExporter + 'static, fate: Arc<Fate>) -> Self {
        let config = BatchConfigBuilder::default().with_max_queue_size(fate.places).build();
        Self { inner: BatchSpanProcessor::new(exporter, config), fate }
    }
}

impl SpanProcessor for Queue {
    fn on_start(&self, span: &mut Span, cx: &Context) {
        self.inner.on_start(span, cx);
    }

    fn on_end(&self, span: SpanData) {
        match self.fate.enter(self.fate.now_ms()) {
            Ok(()) => self.inner.on_end(span),
            Err(change) => {
                if change.is_some() {
                    let places = self.fate.places;
                    tracing::warn!(places, "more spans wait than there are places; what is beyond is dropped");
                }
            }
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(fate: &Fate) -> [u64; 3] {
        [fate.waiting.load(Ordering::Relaxed) as u64, fate.exported.get(), fate.lost.get()]
    }

    #[test]
    fn what_finds_no_place_is_lost_and_each_change_is_told_once() {
        let fate = Fate::new(2, &Spans::default());
        assert_eq!([0, 0].map(|now| fate.enter(now)), [Ok(()), Ok(())]);
        assert_eq!([0, 1].map(|now| fate.enter(now)), [Err(Some(Change::Losing)), Err(None)]);
        assert_eq!(counts(&fate), [2, 0, 2]);
        fate.taken(2);
        assert_eq!(fate.ended_at(2, true, 2), None, "that spans are lost is told already");
        assert_eq!(fate.enter(3), Ok(()));
        assert_eq!(counts(&fate), [1, 0, 4]);
        fate.taken(1);
        let quiet = QUIET.as_millis() as u64;
        assert_eq!(fate.ended_at(1, false, 2), None, "a moment ago it was full");
        assert_eq!(fate.ended_at(0, false, quiet + 2), Some(Change::Well));
        assert_eq!(fate.ended_at(0, false, quiet + 3), None);
        assert_eq!(counts(&fate), [0, 1, 4]);
    }

    #[test]
    fn an_export_that_works_again_is_told_at_once() {
        let fate = Fate::new(2, &Spans::default());
        let told = [true, true, false, false, true].map(|failed| fate.ended_at(1, failed, 0));
        assert_eq!(told, [Some(Change::Losing), None, Some(Change::Well), None, Some(Change::Losing)]);
    }

    #[test]
    fn a_wrong_number_of_places_is_named_with_what_is_right() {
        assert_eq!([None, Some("7")].map(places), [Ok(PLACES), Ok(7)]);
        for text in ["0", "many", "-1", "1000001"] {
            assert!(places(Some(text)).is_err_and(|said| said.contains("1 to 1000000")), "{text}");
        }
    }
}
