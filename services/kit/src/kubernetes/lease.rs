//! One of several processes does what all of them could: a Lease (`coordination.k8s.io/v1`).
//!
//! A Lease does not fence: for some seconds two may think that it is theirs, so the work must bear being done
//! twice. Whoever cannot tell does the work.
//!
//! Whether a holder is still there is judged by whether its renewals arrive, on this process's own clock; the
//! clocks of others do not count.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease as Object, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::PostParams;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::{Access, Cluster, Use, chain};
use crate::shutdown::Shutdown;

/// When things are due.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    /// Without a renewal for so long the Lease is anybody's. Whole seconds.
    pub(super) duration: Duration,
    /// Between two looks.
    pub(super) retry: Duration,
    /// A call takes at most so long.
    pub(super) call: Duration,
    /// What the API said last counts for so long; then nobody knows.
    pub(super) trust: Duration,
}

const TIMING: Timing = Timing {
    duration: Duration::from_secs(15),
    retry: Duration::from_secs(2),
    call: Duration::from_secs(3),
    trust: Duration::from_secs(10),
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Holder,
    /// Another one holds it.
    Other,
    /// The API does not say.
    Unknown,
}

/// A share in a Lease. Clones are the same share.
#[derive(Clone, Debug)]
pub struct Lease {
    standing: watch::Receiver<Standing>,
    able: Arc<AtomicBool>,
}

impl Lease {
    /// Competes for the Lease of this name, in the namespace of this process, until the shutdown begins, and
    /// gives it up then. The Lease is there already; nobody here makes one.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn compete(name: String, identity: String, shutdown: &Shutdown) -> Self {
        Self::with(name, identity, TIMING, Cluster::find, shutdown)
    }

    pub(super) fn with<F, C>(name: String, identity: String, timing: Timing, find: F, shutdown: &Shutdown) -> Self
    where
        F: Fn() -> C + Send + 'static,
        C: Future<Output = Result<Cluster, String>> + Send + 'static,
    {
        let (sender, standing) = watch::channel(Standing::Unknown);
        let able = Arc::new(AtomicBool::new(true));
        let candidate = Candidate { name, elector: Elector::new(identity), timing, able: able.clone(), cluster: None };
        let stop = shutdown.clone();
        shutdown.spawn("lease", candidate.run(find, sender, stop));
        Self { standing, able }
    }

    /// Whether this process is to do the work now: it holds the Lease, or cannot know who does.
    pub fn is_mine(&self) -> bool {
        *self.standing.borrow() != Standing::Other
    }

    /// Whether the work went well. Who cannot do it does not keep it from the others.
    pub fn worked(&self, well: bool) {
        self.able.store(well, Relaxed);
    }
}

struct Candidate {
    name: String,
    elector: Elector,
    timing: Timing,
    able: Arc<AtomicBool>,
    /// Found once.
    cluster: Option<Cluster>,
}

impl Candidate {
    async fn run<F, C>(mut self, find: F, standing: watch::Sender<Standing>, stop: Shutdown)
    where
        F: Fn() -> C,
        C: Future<Output = Result<Cluster, String>>,
    {
        let mut access = Access::new(Use::Lease);
        let mut trusted_until = Instant::now();
        while !stop.is_begun() {
            let able = self.able.load(Relaxed);
            match self.turn(find(), able).await {
                Ok(now) => {
                    access.works();
                    trusted_until = Instant::now() + self.timing.trust;
                    // Who is not able tries on, or it could never be again.
                    let now = if able { now } else { Standing::Unknown };
                    let before = standing.send_replace(now);
                    if before != now {
                        tracing::info!(lease = self.name, standing = ?now, "lease");
                    }
                }
                Err(why) => {
                    access.failed(&why);
                    if Instant::now() >= trusted_until {
                        standing.send_replace(Standing::Unknown);
                    }
                }
            }
            tokio::select! {
                () = sleep(self.timing.retry.mul_f64(0.8 + 0.4 * fastrand::f64())) => {}
                () = stop.cancelled() => {}
            }
        }
        if *standing.borrow() == Standing::Holder {
            // The next one need not wait for the end of the lease; if this fails, it does.
            let _late = self.turn(find(), false).await;
        }
    }

    /// Looks at the Lease and does what is due.
    async fn turn(
        &mut self,
        find: impl Future<Output = Result<Cluster, String>>,
        able: bool,
    ) -> Result<Standing, String> {
        let cluster = match &self.cluster {
            Some(cluster) => cluster.clone(),
            None => self.cluster.insert(find.await?).clone(),
        };
        let api: Api<Object> = Api::namespaced(cluster.client, &cluster.namespace);
        let calls = async {
            let lease = api.get(&self.name).await.map_err(|error| chain(&error))?;
            let step = self.elector.step(&lease, able, self.timing, Instant::now());
            let (wanted, after) = match step {
                Step::Wait => return Ok(Standing::Other),
                Step::Hold => (self.elector.held(lease, self.timing), Standing::Holder),
                Step::Release => (self.elector.released(lease), Standing::Other),
            };
            match api.replace(&self.name, &PostParams::default(), &wanted).await {
                Ok(_) => Ok(after),
                // Another one was faster.
                Err(kube::Error::Api(status)) if status.code == 409 => Ok(Standing::Other),
                Err(error) => Err(chain(&error)),
            }
        };
        let answer = timeout(self.timing.call, calls).await;
        answer.map_err(|_| format!("no answer within {:?}", self.timing.call))?
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Takes or renews it.
    Hold,
    Release,
    Wait,
}

/// Decides; makes no call.
#[derive(Debug)]
struct Elector {
    identity: String,
    /// The newest version of another one's Lease, and since when.
    seen: Option<(String, Instant)>,
}

impl Elector {
    fn new(identity: String) -> Self {
        Self { identity, seen: None }
    }

    fn step(&mut self, lease: &Object, able: bool, timing: Timing, now: Instant) -> Step {
        let spec = lease.spec.as_ref();
        let holder = spec.and_then(|spec| spec.holder_identity.as_deref()).filter(|holder| !holder.is_empty());
        if holder == Some(&self.identity) {
            return if able { Step::Hold } else { Step::Release };
        }
        if !able {
            return Step::Wait;
        }
        let Some(_) = holder else { return Step::Hold };
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        match &self.seen {
            Some((seen, since)) if *seen == version => {
                let said = spec.and_then(|spec| spec.lease_duration_seconds).and_then(|s| u64::try_from(s).ok());
                let duration = said.map_or(timing.duration, Duration::from_secs);
                if now.duration_since(*since) >= duration { Step::Hold } else { Step::Wait }
            }
            _ => {
                self.seen = Some((version, now));
                Step::Wait
            }
        }
    }

    /// The Lease in this process's hands, renewed now.
    fn held(&self, mut lease: Object, timing: Timing) -> Object {
        let mut spec = lease.spec.unwrap_or_default();
        let now = MicroTime(Timestamp::now());
        if spec.holder_identity.as_ref() != Some(&self.identity) {
            spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0).saturating_add(1));
            spec.acquire_time = Some(now.clone());
        }
        let seconds = i32::try_from(timing.duration.as_secs()).unwrap_or(i32::MAX);
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(seconds.max(1)),
            renew_time: Some(now),
            ..spec
        });
        lease
    }

    /// The Lease without a holder.
    fn released(&self, mut lease: Object) -> Object {
        let spec = lease.spec.unwrap_or_default();
        lease.spec = Some(LeaseSpec { holder_identity: Some(String::new()), ..spec });
        lease
    }
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use serde_json::json;

    use super::*;
    use crate::kubernetes::fake::FakeApi;

    const PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/chat/leases/reaper";

    const QUICK: Timing = Timing {
        duration: Duration::from_secs(1),
        retry: Duration::from_millis(20),
        call: Duration::from_secs(2),
        trust: Duration::from_millis(100),
    };

    async fn api() -> FakeApi {
        let api = FakeApi::start().await;
        let lease =
            json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": "reaper" } });
        api.put(PATH, Some(lease));
        api
    }

    fn share(api: &FakeApi, identity: &str) -> (Lease, Shutdown) {
        let (api, shutdown) = (api.clone(), Shutdown::new());
        let find = move || std::future::ready(Ok(api.cluster()));
        (Lease::with("reaper".to_owned(), identity.to_owned(), QUICK, find, &shutdown), shutdown)
    }

    async fn until(lease: &Lease, wanted: Standing) {
        let mut standing = lease.standing.clone();
        let seen =
            tokio::time::timeout(Duration::from_secs(30), standing.wait_for(|standing| *standing == wanted)).await;
        assert!(seen.is_ok(), "{wanted:?} never came");
    }

    fn holder(api: &FakeApi) -> String {
        api.get(PATH).unwrap()["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
    }

    #[tokio::test]
    async fn one_holds_it_and_gives_it_up_at_its_end() {
        let api = api().await;
        let (first, first_ends) = share(&api, "first");
        assert!(first.is_mine(), "who does not know yet does the work");
        until(&first, Standing::Holder).await;
        let (second, _second_ends) = share(&api, "second");
        until(&second, Standing::Other).await;
        assert!(first.is_mine() && !second.is_mine());
        first_ends.begin();
        assert!(first_ends.wait(Duration::from_secs(5)).await);
        until(&second, Standing::Holder).await;
        assert_eq!(holder(&api), "second");
        assert_eq!(api.get(PATH).unwrap()["spec"]["leaseTransitions"], 2);
    }

    #[tokio::test]
    async fn a_holder_that_is_gone_is_followed_after_the_duration() {
        let api = api().await;
        let mut gone = api.get(PATH).unwrap();
        gone["spec"] = json!({ "holderIdentity": "gone", "leaseDurationSeconds": 1 });
        api.put(PATH, Some(gone));
        let begin = Instant::now();
        let (next, _ends) = share(&api, "next");
        until(&next, Standing::Other).await;
        until(&next, Standing::Holder).await;
        assert!(begin.elapsed() >= Duration::from_secs(1), "after {:?}", begin.elapsed());
    }

    #[tokio::test]
    async fn without_the_api_everybody_does_the_work_until_it_is_back() {
        let api = api().await;
        let (first, _first_ends) = share(&api, "first");
        until(&first, Standing::Holder).await;
        let (second, _second_ends) = share(&api, "second");
        until(&second, Standing::Other).await;
        api.refuse(Some(StatusCode::FORBIDDEN));
        until(&first, Standing::Unknown).await;
        until(&second, Standing::Unknown).await;
        assert!(first.is_mine() && second.is_mine());
        api.refuse(None);
        until(&first, Standing::Holder).await;
        until(&second, Standing::Other).await;
    }

    #[tokio::test]
    async fn who_cannot_do_the_work_leaves_it_to_the_others() {
        let api = api().await;
        let (first, _first_ends) = share(&api, "first");
        until(&first, Standing::Holder).await;
        let (second, _second_ends) = share(&api, "second");
        until(&second, Standing::Other).await;
        first.worked(false);
        until(&second, Standing::Holder).await;
        until(&first, Standing::Unknown).await;
        first.worked(true);
        until(&first, Standing::Other).await;
    }
}
