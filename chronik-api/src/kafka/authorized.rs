//! What the caller may do to a resource, as a set of bits (KIP-430): bit n stands for Kafka's operation n.

use super::context::{Operation, Resource};
use super::handler::Call;

/// In a response: nobody asked.
pub const NOT_ASKED: i32 = i32::MIN;

const TOPIC: &[Operation] = &[
    Operation::Read,
    Operation::Write,
    Operation::Create,
    Operation::Delete,
    Operation::Alter,
    Operation::Describe,
    Operation::DescribeConfigs,
    Operation::AlterConfigs,
];

const CLUSTER: &[Operation] = &[
    Operation::Create,
    Operation::Alter,
    Operation::Describe,
    Operation::ClusterAction,
    Operation::DescribeConfigs,
    Operation::AlterConfigs,
    Operation::IdempotentWrite,
];

const GROUP: &[Operation] =
    &[Operation::Read, Operation::Delete, Operation::Describe, Operation::DescribeConfigs, Operation::AlterConfigs];

/// Kafka's number of an operation.
const fn number(operation: Operation) -> u32 {
    match operation {
        Operation::Read => 3,
        Operation::Write => 4,
        Operation::Create => 5,
        Operation::Delete => 6,
        Operation::Alter => 7,
        Operation::Describe => 8,
        Operation::ClusterAction => 9,
        Operation::DescribeConfigs => 10,
        Operation::AlterConfigs => 11,
        Operation::IdempotentWrite => 12,
    }
}

/// The operations on this resource that the caller is allowed; [`NOT_ASKED`] unless `asked`.
pub fn operations(call: &Call, resource: Resource<'_>, asked: bool) -> i32 {
    if !asked {
        return NOT_ASKED;
    }
    let all = match resource {
        Resource::Topic(_) => TOPIC,
        Resource::Cluster => CLUSTER,
        Resource::Group(_) => GROUP,
        Resource::TransactionalId(_) => &[Operation::Write, Operation::Describe],
    };
    let allowed = all.iter().filter(|operation| call.broker.authorizer.allows(&call.context, **operation, resource));
    allowed.fold(0, |bits, operation| bits | 1 << number(*operation))
}
