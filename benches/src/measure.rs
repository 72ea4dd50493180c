//! Measuring in turns.

use std::time::Instant;

use cpu_time::{ProcessTime, ThreadTime};

use crate::Failure;

/// How one way compares with the first.
#[derive(Clone, Copy, Debug)]
pub struct Ratio {
    /// Half of the turns were below, half above.
    pub median: f64,
    /// A quarter of the turns was below.
    pub low: f64,
    /// A quarter of the turns was above.
    pub high: f64,
}

/// The times of all ways in all turns.
#[derive(Debug)]
pub struct Turns {
    seconds: Vec<Vec<f64>>,
    /// What this process computed meanwhile, all threads together.
    computed: Vec<Vec<f64>>,
}

impl Turns {
    /// Does the work in each of `ways` ways once to warm up, then `turns` times in turn, every other time in the opposite
    /// order. `work` does it in the way of that number and says how many seconds it took.
    ///
    /// # Errors
    /// The first that `work` returns.
    pub async fn take(
        turns: usize,
        ways: usize,
        mut work: impl AsyncFnMut(usize) -> Result<f64, Failure>,
    ) -> Result<Self, Failure> {
        for way in 0..ways {
            work(way).await?;
        }
        let mut seconds = vec![Vec::with_capacity(turns); ways];
        let mut computed = seconds.clone();
        for turn in 0..turns {
            for place in 0..ways {
                let way = if turn % 2 == 0 { place } else { ways - 1 - place };
                let before = ProcessTime::now();
                seconds[way].push(work(way).await?);
                computed[way].push(before.elapsed().as_secs_f64());
            }
        }
        Ok(Self { seconds, computed })
    }

    /// As [`Self::take`], for work that does not wait and tells what it computed, in seconds; each way is told the number of the turn, from 0 on.
    pub fn take_now(turns: usize, ways: &mut [&mut dyn FnMut(usize) -> f64]) -> Self {
        let mut seconds = vec![Vec::with_capacity(turns); ways.len()];
        for turn in 0..turns {
            for place in 0..ways.len() {
                let way = if turn % 2 == 0 { place } else { ways.len() - 1 - place };
                seconds[way].push(ways[way](turn));
            }
        }
        Self { computed: seconds.clone(), seconds }
    }

    /// The times of one way.
    pub fn all(&self, way: usize) -> &[f64] {
        &self.seconds[way]
    }

    /// The median time of one way.
    pub fn median(&self, way: usize) -> f64 {
        quantile(&self.seconds[way], 0.5)
    }

    /// How many times as fast `way` is as `other`, turn by turn.
    pub fn speed(&self, way: usize, other: usize) -> Ratio {
        let ratios: Vec<f64> = self.seconds[way].iter().zip(&self.seconds[other]).map(|(a, b)| b / a).collect();
        Ratio::of(&ratios)
    }

    /// As [`Self::speed`], by what was computed rather than by how long it took: a busy machine disturbs that less.
    pub fn thrift(&self, way: usize, other: usize) -> f64 {
        let ratios: Vec<f64> = self.computed[way].iter().zip(&self.computed[other]).map(|(a, b)| b / a).collect();
        quantile(&ratios, 0.5)
    }

    /// The difference of two ways, turn by turn, in seconds.
    pub fn difference(&self, way: usize, other: usize) -> Ratio {
        let differences: Vec<f64> = self.seconds[way].iter().zip(&self.seconds[other]).map(|(a, b)| a - b).collect();
        Ratio::of(&differences)
    }
}

impl Ratio {
    /// Of values that were measured in turn.
    pub fn of(values: &[f64]) -> Self {
        Self { median: quantile(values, 0.5), low: quantile(values, 0.25), high: quantile(values, 0.75) }
    }

    /// A value that does not vary.
    pub fn exact(value: f64) -> Self {
        Self { median: value, low: value, high: value }
    }

    /// Every part multiplied.
    #[must_use]
    pub fn times(self, factor: f64) -> Self {
        Self { median: self.median * factor, low: self.low * factor, high: self.high * factor }
    }
}

/// How many seconds `work` takes.
///
/// # Errors
/// Those of `work`.
pub async fn timed<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<f64, Failure> {
    let start = Instant::now();
    work.await?;
    Ok(start.elapsed().as_secs_f64())
}

/// What the calling thread has computed, in seconds.
pub fn thread_time() -> f64 {
    ThreadTime::now().as_duration().as_secs_f64()
}

/// The value below which `part` of all lie, between two neighbours if need be; not a number when there are none.
pub fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let place = part * last as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_neighbours() {
        assert_eq!(quantile(&[3.0, 1.0, 2.0], 0.5), 2.0);
        assert_eq!(quantile(&[4.0, 1.0, 2.0, 3.0], 0.5), 2.5);
        assert_eq!(quantile(&[5.0], 0.25), 5.0);
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn speed_compares_turn_by_turn() {
        let turns = Turns::take_now(3, &mut [&mut |turn| 1.0 + turn as f64, &mut |_| 6.0]);
        assert_eq!(turns.speed(0, 1).median, 3.0, "6/1, 6/2, 6/3");
    }
}
