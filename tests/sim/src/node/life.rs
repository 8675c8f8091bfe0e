//! A broker's life in the cluster: it registers, beats, and asks for other in-sync sets, as the broker does.

use super::Around;
use super::asks::Asks;
use super::group::Group;
use super::table::Table;
use chronik_core::ids::{LogId, NodeId, Offset};
use chronik_core::metadata::Image;
use chronik_core::metadata::controller::{self, AlterPartitions, Heartbeat, Registration, WantedInSync};
use chronik_core::metadata::requests::{Answer, Refusal, Request};
use chronik_core::partition::replicas::InSyncQuestion;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

const AGAIN: Duration = Duration::from_millis(300);
const LOOK_EVERY: Duration = Duration::from_millis(50);
const ASK_FOR: Duration = Duration::from_secs(2);
const MIN_ASK: Duration = Duration::from_millis(300);

/// Registers this process, however long that takes; gives its broker epoch, once this node's image has it.
pub async fn register(around: &Around, asks: &Asks, group: &Group, mut registration: Registration) -> Option<Offset> {
    let (node, incarnation) = (registration.node, registration.incarnation);
    loop {
        let request = Request::Register(registration.clone());
        match asks.ask(&request, Duration::from_secs(10)).await {
            Ok(Answer::Registered { broker_epoch }) => {
                let is_here =
                    |image: &Image| controller::registered_epoch(image, node, incarnation) == Some(broker_epoch);
                group.changes().wait_for(|| is_here(&group.image()).then_some(())).await;
                return Some(broker_epoch);
            }
            Ok(Answer::Refused(Refusal::RegisteredSince { present })) => {
                let is_news = present > registration.after;
                registration.after = present;
                around.judges.borrow_mut().count("registration asked again, after another");
                if !is_news {
                    around.sim.sleep(around.process, AGAIN).await;
                }
            }
            Ok(Answer::Refused(Refusal::Invalid(_))) => return None,
            Ok(_) => around.sim.sleep(around.process, AGAIN).await,
            Err(_) => {}
        }
    }
}

/// Beats for ever, or until another process has taken this one's place.
pub async fn beat(
    around: Around,
    asks: Rc<Asks>,
    group: Rc<Group>,
    table: Rc<Table>,
    broker_epoch: Offset,
    every: Duration,
) {
    let mut fenced = true;
    loop {
        let heartbeat = Heartbeat {
            broker_epoch,
            applied: group.image().position().next,
            offline: table.offline(),
            wants_shutdown: false,
        };
        match asks.ask(&Request::Heartbeat(heartbeat), every.max(MIN_ASK)).await {
            Ok(Answer::Heartbeat(answer)) => {
                let before = std::mem::replace(&mut fenced, answer.fenced);
                if before != fenced {
                    around.sim.tell(|| format!("n{} is {}", around.node, if fenced { "fenced" } else { "active" }));
                }
            }
            Ok(Answer::Refused(Refusal::StaleBrokerEpoch)) => {
                // The broker ends, too: whoever runs it starts it again, and it registers anew.
                return around.give_up("another process of it has registered since");
            }
            _ => {}
        }
        around.sim.sleep(around.process, if fenced { every / 10 } else { every }).await;
    }
}

/// Leaders on this broker ask for other in-sync sets, one request at a time.
pub async fn wish(around: Around, asks: Rc<Asks>, group: Rc<Group>, table: Rc<Table>, broker_epoch: Offset) {
    let node = around.node;
    let mut seq = 0;
    loop {
        around.sim.sleep(around.process, LOOK_EVERY).await;
        let mut asked: BTreeMap<LogId, InSyncQuestion> = BTreeMap::new();
        for partition in table.all() {
            if let Some(question) = partition.ask_in_sync() {
                asked.insert(partition.id, question);
            }
        }
        if asked.is_empty() {
            continue;
        }
        seq += 1;
        let image = group.image();
        let wish = |(log, question): (&LogId, &InSyncQuestion)| {
            let epoch = |member: &NodeId| {
                let known = || image.broker(*member).map(|broker| broker.epoch);
                let epoch = if *member == node { Some(broker_epoch) } else { table.session(*member).or_else(known) };
                (*member, epoch.unwrap_or(Offset(-1)))
            };
            WantedInSync {
                log: *log,
                leader_epoch: question.leader_epoch,
                partition_epoch: question.partition_epoch,
                isr: question.in_sync.iter().map(epoch).collect(),
                synced: false,
            }
        };
        let request = AlterPartitions { broker_epoch, seq, partitions: asked.iter().map(wish).collect() };
        around.sim.tell(|| {
            let sets: Vec<_> = asked.iter().map(|(log, question)| format!("{log}: {:?}", question.in_sync)).collect();
            format!("n{node} asks for in-sync sets ({seq}): {}", sets.join(", "))
        });
        let request = Request::AlterPartitions(request);
        let is_over =
            |image: &Image| image.broker(node).is_none_or(|own| own.epoch != broker_epoch || own.last_seq >= seq);
        loop {
            if let Ok(Answer::Refused(Refusal::StaleBrokerEpoch)) = asks.ask(&request, ASK_FOR).await {
                return;
            }
            let over = group.changes().wait_for(|| is_over(&group.image()).then_some(()));
            if around.sim.within(around.process, ASK_FOR, over).await.is_some() {
                break;
            }
        }
        let image = group.image();
        for (log, question) in asked {
            let now = image.partition(log.topic, log.partition).map(|partition| partition.partition_epoch);
            if now == Some(question.partition_epoch)
                && let Some(partition) = table.get(log)
            {
                partition.question_refused(&question);
            }
        }
    }
}
