//! Reading a flatbuffer whose content is not trusted: every read is checked, and what is not there as a whole is
//! none.

/// A table: fields that may be there, by their numbers in the schema.
#[derive(Debug, Clone, Copy)]
pub struct Table<'a> {
    data: &'a [u8],
    start: usize,
    /// Where the fields' offsets lie.
    offsets: &'a [u8],
}

impl<'a> Table<'a> {
    /// The table that a file begins with.
    pub fn root(data: &'a [u8]) -> Option<Self> {
        Self::at(data, 0)
    }

    /// The table that an offset at `place` leads to.
    fn at(data: &'a [u8], place: usize) -> Option<Self> {
        let start = place.checked_add(unsigned(data, place)?)?;
        let distance = i64::from(i32::from_le_bytes(bytes(data, start)?));
        let vtable = usize::try_from(i64::try_from(start).ok()?.checked_sub(distance)?).ok()?;
        let length = usize::from(u16::from_le_bytes(bytes(data, vtable)?));
        let offsets = data.get(vtable.checked_add(4)?..vtable.checked_add(length)?)?;
        Some(Self { data, start, offsets })
    }

    /// Where a field lies; none if it is not there, and so has its default.
    fn field(&self, number: usize) -> Option<usize> {
        let offset = u16::from_le_bytes(bytes(self.offsets, number.checked_mul(2)?)?);
        if offset == 0 { None } else { self.start.checked_add(offset.into()) }
    }

    /// A number of one byte, or its default 0.
    pub fn i8(&self, number: usize) -> Option<i8> {
        self.field(number).map_or(Some(0), |place| Some(i8::from_le_bytes(bytes(self.data, place)?)))
    }

    /// A number of four bytes, or its default 0.
    pub fn u32(&self, number: usize) -> Option<u32> {
        self.field(number).map_or(Some(0), |place| Some(u32::from_le_bytes(bytes(self.data, place)?)))
    }

    /// A number of eight bytes, or its default 0.
    pub fn u64(&self, number: usize) -> Option<u64> {
        self.field(number).map_or(Some(0), |place| Some(u64::from_le_bytes(bytes(self.data, place)?)))
    }

    /// Whether a field is there.
    pub fn has(&self, number: usize) -> bool {
        self.field(number).is_some()
    }

    /// The items of a list, `size` bytes each; none at all if the list is not there.
    fn list(&self, number: usize, size: usize) -> Option<(usize, usize)> {
        let Some(place) = self.field(number) else { return Some((0, 0)) };
        let list = place.checked_add(unsigned(self.data, place)?)?;
        let count = unsigned(self.data, list)?;
        let first = list.checked_add(4)?;
        let end = first.checked_add(count.checked_mul(size)?)?;
        (end <= self.data.len()).then_some((first, count))
    }

    /// A list of bytes, or a text.
    pub fn bytes(&self, number: usize) -> Option<&'a [u8]> {
        let (first, count) = self.list(number, 1)?;
        self.data.get(first..first.checked_add(count)?)
    }

    /// A list of numbers of four bytes.
    pub fn numbers(&self, number: usize) -> Option<Vec<i32>> {
        let (first, count) = self.list(number, 4)?;
        (0..count).map(|index| Some(i32::from_le_bytes(bytes(self.data, first + 4 * index)?))).collect()
    }

    /// A list of tables.
    pub fn tables(&self, number: usize) -> Option<Vec<Table<'a>>> {
        let (first, count) = self.list(number, 4)?;
        (0..count).map(|index| Self::at(self.data, first + 4 * index)).collect()
    }
}

/// That many bytes, if they are there.
pub fn bytes<const N: usize>(data: &[u8], place: usize) -> Option<[u8; N]> {
    data.get(place..place.checked_add(N)?)?.try_into().ok()
}

fn unsigned(data: &[u8], place: usize) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(bytes(data, place)?)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table with a number of four bytes, a field that is not there, and a list of two numbers.
    const FILE: [u8; 40] = [
        14, 0, 0, 0, // the root, 14 bytes on
        10, 0, 12, 0, 4, 0, 0, 0, 8, 0, // length of this and of the table, offsets of the fields
        10, 0, 0, 0, // the table: back to its offsets
        7, 0, 0, 0, // the number
        4, 0, 0, 0, // the list, 4 bytes on
        2, 0, 0, 0, 255, 255, 255, 255, 5, 0, 0, 0, // two numbers
        0, 0,
    ];

    #[test]
    fn fields_are_read_and_those_that_are_not_there_have_their_default() {
        let table = Table::root(&FILE).unwrap();
        assert_eq!(table.u32(0).unwrap(), 7);
        assert!(!table.has(1));
        assert_eq!(table.u32(1).unwrap(), 0);
        assert_eq!(table.numbers(2).unwrap(), [-1, 5]);
        assert_eq!(table.numbers(3).unwrap(), [0; 0]);
    }

    #[test]
    fn whatever_is_cut_off_or_changed_is_none_or_something_else_and_no_panic() {
        for end in 0..FILE.len() {
            let _ = Table::root(&FILE[..end]).map(|table| (table.u32(0), table.numbers(2), table.tables(2)));
        }
        for place in 0..FILE.len() {
            for value in [0, 1, 127, 128, 255] {
                let mut file = FILE;
                file[place] = value;
                let _ = Table::root(&file).map(|table| (table.u64(0), table.numbers(2), table.bytes(2)));
            }
        }
        assert!(Table::root(&[255; 40]).is_none());
    }
}
