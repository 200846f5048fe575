//! Which work is traced: `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG`. Pure.

use opentelemetry::trace::SpanContext;

/// The decision at the root of a trace, and below a caller's context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sampler {
    /// The caller's decision stands.
    parent_based: bool,
    /// Roots are sampled when 64 random bits are below; `None`: always.
    bound: Option<u64>,
}

impl Sampler {
    /// Reads the two variables' texts; the error says what is wrong, and what would be right.
    pub(super) fn parse(name: Option<&str>, argument: Option<&str>) -> Result<Self, String> {
        let name = name.unwrap_or("parentbased_always_on");
        let (parent_based, kind) = match name.strip_prefix("parentbased_") {
            Some(kind) => (true, kind),
            None => (false, name),
        };
        let bound = match kind {
            "always_on" => None,
            "always_off" => Some(0),
            "traceidratio" => ratio(argument.unwrap_or("1"))?,
            _ => {
                return Err(format!(
                    "OTEL_TRACES_SAMPLER is `{name}`; always_on, always_off, traceidratio, and each with \
                     parentbased_ in front are known"
                ));
            }
        };
        Ok(Self { parent_based, bound })
    }

    /// Everything is sampled, unless a caller said no.
    pub(super) const fn always() -> Self {
        Self { parent_based: true, bound: None }
    }

    /// Decides by 64 random bits; below a caller's context by that, or by the bits of its trace id.
    pub(super) fn decide(self, parent: Option<&SpanContext>, random: impl FnOnce() -> u64) -> bool {
        match parent {
            Some(parent) if self.parent_based => parent.is_sampled(),
            Some(parent) => self.is_below(|| {
                let id = parent.trace_id().to_bytes();
                u64::from_be_bytes([id[8], id[9], id[10], id[11], id[12], id[13], id[14], id[15]])
            }),
            None => self.is_below(random),
        }
    }

    /// Nothing begins here, whatever is asked.
    pub(super) fn is_off(self) -> bool {
        self.bound == Some(0)
    }

    fn is_below(self, bits: impl FnOnce() -> u64) -> bool {
        self.bound.is_none_or(|bound| bound > 0 && bits() < bound)
    }
}

fn ratio(text: &str) -> Result<Option<u64>, String> {
    match text.parse::<f64>() {
        Ok(1.0) => Ok(None),
        Ok(ratio) if (0.0..1.0).contains(&ratio) => Ok(Some((ratio * 2_f64.powi(64)) as u64)),
        _ => Err(format!("OTEL_TRACES_SAMPLER_ARG is `{text}`; a ratio from 0 to 1 is right")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::context;
    use super::*;

    fn parent(sampled: bool) -> SpanContext {
        let flag = if sampled { "01" } else { "00" };
        context::parse(&format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flag}")).unwrap()
    }

    #[test]
    fn without_a_variable_everything_is_sampled_but_what_a_caller_excluded() {
        let sampler = Sampler::parse(None, None).unwrap();
        assert_eq!(sampler, Sampler::always());
        assert!(sampler.decide(None, || u64::MAX));
        assert!(sampler.decide(Some(&parent(true)), || 0) && !sampler.decide(Some(&parent(false)), || 0));
    }

    #[test]
    fn a_ratio_takes_its_share_of_roots_and_follows_callers() {
        let sampler = Sampler::parse(Some("parentbased_traceidratio"), Some("0.25")).unwrap();
        let share = (0..1_000_u64).filter(|n| sampler.decide(None, || n * (u64::MAX / 1_000))).count();
        assert!((249..=251).contains(&share), "{share}");
        assert!(sampler.decide(Some(&parent(true)), || u64::MAX));
        let own = Sampler::parse(Some("traceidratio"), Some("0.5")).unwrap();
        assert!(!own.decide(Some(&parent(true)), || 0), "by the bits of the trace id, a3ce...");
    }

    #[test]
    fn off_is_off_and_wrong_values_say_what_is_right() {
        let off = Sampler::parse(Some("parentbased_always_off"), None).unwrap();
        assert!(off.is_off() && !off.decide(None, || 0));
        assert!(Sampler::parse(Some("sometimes"), None).unwrap_err().contains("always_on"));
        assert!(Sampler::parse(Some("traceidratio"), Some("2")).unwrap_err().contains("from 0 to 1"));
    }
}
