//! Numbers that stand for many.

use anyhow::{Context, Result};

/// Where the middle half of some values lies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quartiles {
    pub lower: f64,
    pub median: f64,
    pub upper: f64,
}

impl Quartiles {
    /// Between two values they are interpolated. Fails where there are no values.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Result<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let at = |part| quantile(&sorted, part).context("there is nothing to take the median of");
        Ok(Self { lower: at(0.25)?, median: at(0.5)?, upper: at(0.75)? })
    }
}

/// The middle value.
pub fn median(values: impl IntoIterator<Item = f64>) -> Result<f64> {
    Ok(Quartiles::of(values)?.median)
}

/// The value below which a part of them lies, from 0 to 1.
fn quantile(sorted: &[f64], part: f64) -> Option<f64> {
    let place = part * sorted.len().checked_sub(1)? as f64;
    let below = *sorted.get(place.floor() as usize)?;
    let above = *sorted.get(place.ceil() as usize)?;
    Some(below + (above - below) * place.fract())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_of_an_odd_number_are_values_whatever_their_order() {
        let quartiles = Quartiles::of([5.0, 1.0, 4.0, 2.0, 3.0]).unwrap();
        assert_eq!(quartiles, Quartiles { lower: 2.0, median: 3.0, upper: 4.0 });
    }

    #[test]
    fn quartiles_of_an_even_number_lie_between_values() {
        let quartiles = Quartiles::of([1.0, 2.0, 3.0, 10.0]).unwrap();
        assert_eq!(quartiles, Quartiles { lower: 1.75, median: 2.5, upper: 4.75 });
    }

    #[test]
    fn one_value_stands_for_itself_and_none_for_nothing() {
        assert_eq!(Quartiles::of([7.0]).unwrap(), Quartiles { lower: 7.0, median: 7.0, upper: 7.0 });
        assert_eq!(median([7.0]).unwrap(), 7.0);
        assert!(Quartiles::of([]).is_err());
    }
}
