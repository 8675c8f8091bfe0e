//! Partition.
