//! Exemplars of histograms that are counted without a lock. The library builds exemplars only inside of its own
//! histogram, which locks for each observation; here they are written behind the buckets when the text is made.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

/// Says for buckets, by place, the observed value and the id of its trace.
type Source = Box<dyn Fn() -> HashMap<usize, (f64, String)> + Send>;

/// Histograms whose buckets point at traces, by name.
#[derive(Default)]
pub(super) struct Sources(Mutex<Vec<(&'static str, Source)>>);

impl Sources {
    pub(super) fn add(&self, name: &'static str, source: Source) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((name, source));
    }

    /// The text with the newest trace behind each bucket that has one.
    pub(super) fn point(&self, mut text: String) -> String {
        for (name, source) in &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            let newest = source();
            if !newest.is_empty() {
                text = behind(&text, &format!("{name}_bucket{{"), &newest);
            }
        }
        text
    }
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").finish_non_exhaustive()
    }
}

fn behind(text: &str, start: &str, newest: &HashMap<usize, (f64, String)>) -> String {
    let mut pointed = String::with_capacity(text.len() + 100 * newest.len());
    let mut place = 0;
    for line in text.lines() {
        pointed.push_str(line);
        if line.starts_with(start) {
            if let Some((value, id)) = newest.get(&place) {
                pointed.push_str(&format!(" # {{trace_id=\"{id}\"}} {value:?}"));
            }
            place += 1;
        }
        pointed.push('\n');
    }
    pointed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bucket_points_at_its_own_trace() {
        let sources = Sources::default();
        let text =
            "# TYPE a histogram\na_bucket{le=\"0.1\"} 1\na_bucket{le=\"+Inf\"} 3\nb_bucket{le=\"1.0\"} 3\n# EOF\n";
        assert_eq!(sources.point(text.to_owned()), text, "nobody points anywhere");
        sources.add("a", Box::new(|| HashMap::from([(1, (2.5, "cafe".to_owned()))])));
        let pointed = text.replace("+Inf\"} 3", "+Inf\"} 3 # {trace_id=\"cafe\"} 2.5");
        assert_eq!(sources.point(text.to_owned()), pointed);
    }
}
