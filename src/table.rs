//! A vector whose rows are found by an id of their own type and never removed.

use std::marker::PhantomData;
use std::ops::{Index, IndexMut};

/// The id of a row.
pub trait RowId: Copy {
    /// The id of the row at this position.
    fn from_index(index: usize) -> Self;
    /// The position of the row.
    fn index(self) -> usize;
}

/// Rows that are found by id. An id comes only from a table, and rows are not removed, so that access
/// cannot fail: an id of another table is a defect and panics.
#[derive(Debug)]
pub struct Table<I, T> {
    rows: Vec<T>,
    id: PhantomData<fn(I) -> I>,
}

impl<I, T> Default for Table<I, T> {
    fn default() -> Self {
        Self {
            rows: Vec::new(),
            id: PhantomData,
        }
    }
}

impl<I: RowId, T> Table<I, T> {
    /// Appends a row and returns its id.
    pub fn push(&mut self, row: T) -> I {
        self.rows.push(row);
        I::from_index(self.rows.len() - 1)
    }

    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Returns true if there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Every id, ascending.
    pub fn ids(&self) -> impl Iterator<Item = I> + use<I, T> {
        (0..self.rows.len()).map(I::from_index)
    }

    /// Every row with its id.
    pub fn iter(&self) -> impl Iterator<Item = (I, &T)> {
        let rows = self.rows.iter().enumerate();
        rows.map(|(index, row)| (I::from_index(index), row))
    }

    /// Every row.
    pub fn rows_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.rows.iter_mut()
    }
}

impl<I: RowId, T> Index<I> for Table<I, T> {
    type Output = T;

    fn index(&self, id: I) -> &T {
        self.rows.get(id.index()).expect("an id of this table")
    }
}

impl<I: RowId, T> IndexMut<I> for Table<I, T> {
    fn index_mut(&mut self, id: I) -> &mut T {
        self.rows.get_mut(id.index()).expect("an id of this table")
    }
}
