//! The replicas of a service, of which one at a time is used: the link that calls in order needs no more,
//! and a call that finds its replica away is made again at another one, never at the same.

use plaza_kit::discovery::Targets;
use tokio::sync::watch;
use tonic::transport::{Channel, Uri};

/// All replicas, and the one in use.
#[derive(Debug)]
pub(super) struct Replicas {
    targets: Targets,
    endpoints: watch::Receiver<Vec<Uri>>,
    used: Option<(Uri, Channel)>,
}

impl Replicas {
    /// The replicas behind these endpoints of the targets, as the list changes.
    pub(super) fn new(targets: Targets, endpoints: watch::Receiver<Vec<Uri>>) -> Self {
        Self { targets, endpoints, used: None }
    }

    /// A channel to the replica in use; it connects with the first call. Any replica at first, so that edges
    /// spread. Waits while none is known: give it a deadline.
    pub(super) async fn channel(&mut self) -> Channel {
        loop {
            let known = self.endpoints.borrow_and_update().clone();
            if let Some((_, channel)) = self.used.as_ref().filter(|(uri, _)| known.contains(uri)) {
                return channel.clone();
            }
            if let Some(uri) = fastrand::choice(&known) {
                return self.take(uri);
            }
            if self.endpoints.changed().await.is_err() {
                // The end of the process.
                std::future::pending::<()>().await;
            }
        }
    }

    /// The replica in use did not answer: another one from now on, if there is one.
    pub(super) fn move_on(&mut self) {
        let known = self.endpoints.borrow().clone();
        let others: Vec<&Uri> = match &self.used {
            Some((used, _)) => known.iter().filter(|uri| *uri != used).collect(),
            None => return,
        };
        if let Some(uri) = fastrand::choice(others) {
            self.take(uri);
        }
    }

    fn take(&mut self, uri: &Uri) -> Channel {
        let channel = self.targets.endpoint(uri).connect_lazy();
        self.used = Some((uri.clone(), channel.clone()));
        channel
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uris(hosts: &[&str]) -> Vec<Uri> {
        hosts.iter().map(|host| format!("http://{host}:1").parse().expect("an address")).collect()
    }

    fn used(replicas: &Replicas) -> String {
        replicas.used.as_ref().map(|(uri, _)| uri.host().unwrap_or_default().to_owned()).unwrap_or_default()
    }

    #[tokio::test]
    async fn one_replica_is_used_until_it_is_away_or_gone() {
        let (sender, receiver) = watch::channel(uris(&["a", "b"]));
        let mut replicas = Replicas::new(Targets::parse("http://a:1").expect("an address"), receiver);
        replicas.channel().await;
        let first = used(&replicas);
        replicas.channel().await;
        assert_eq!(used(&replicas), first);
        replicas.move_on();
        let second = used(&replicas);
        assert_ne!(second, first);
        sender.send_replace(uris(&[&first]));
        replicas.channel().await;
        assert_eq!(used(&replicas), first);
        replicas.move_on();
        assert_eq!(used(&replicas), first, "there is no other one");
    }
}
