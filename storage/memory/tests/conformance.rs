//! The reference model keeps the contract.

use chronik_conformance::wal::Store;
use chronik_core::wal::WalEngine;
use chronik_storage_memory::MemoryEngine;
use std::sync::Arc;

struct Memory;

impl Store for Memory {
    fn start(&self) -> Arc<dyn WalEngine> {
        Arc::new(MemoryEngine::new(1 << 28))
    }
}

chronik_conformance::wal_suite!(Memory);
