//! What the rules of fairness promise, one promise a test.

use super::*;

const MIB: u64 = 1024 * 1024;
const T0: Time = Time(0);

fn choker(max_unchoked: usize) -> Choker {
    Choker::new(ChokerConfig {
        max_unchoked,
        credit_bytes: MIB,
        max_unchoked_ms: 300_000,
        unused_slot_ms: 30_000,
        idle_ms: 60_000,
    })
}

fn key(index: u32) -> PeerKey {
    PeerKey {
        index,
        generation: index + 100,
    }
}

/// Each of them has an address and a network of its own.
fn origin(index: u32) -> Origin {
    Origin::of(std::net::Ipv4Addr::from(index << 8 | 1).into())
}

fn connected(choker: &mut Choker, index: u32, now: Time) {
    choker.begun(key(index), origin(index), now);
    choker.connected(key(index), now);
}

fn interested(choker: &mut Choker, peers: std::ops::Range<u32>) {
    for index in peers {
        connected(choker, index, T0);
        choker.interested(key(index));
    }
}

/// Peers of one address that are interested.
fn crowd(choker: &mut Choker, peers: std::ops::Range<u32>, address: &str) {
    for index in peers {
        choker.begun(key(index), Origin::of(address.parse().unwrap()), T0);
        choker.connected(key(index), T0);
        choker.interested(key(index));
    }
}

/// Bytes of usual blocks: 16 KiB each.
fn send(choker: &mut Choker, index: u32, bytes: u64, now: Time) {
    let blocks = u32::try_from(bytes / (16 * 1024)).unwrap();
    choker.sent(key(index), bytes, blocks, now);
}

fn request(choker: &mut Choker, index: u32, now: Time) {
    choker.requested(key(index), 16 * 1024, true, now);
}

fn rebalance(choker: &mut Choker, now: Time) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    choker.rebalance(now, false, &mut verdicts);
    verdicts
}

fn rebalance_at_capacity(choker: &mut Choker, now: Time) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    choker.rebalance(now, true, &mut verdicts);
    verdicts
}

fn is_disconnect(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Disconnect(..))
}

fn unchoke(peers: std::ops::Range<u32>) -> Vec<Verdict> {
    peers.map(|index| Verdict::Unchoke(key(index))).collect()
}

/// What fairness costs for each connection, beside its entries in the sets.
#[test]
fn a_member_is_small() {
    assert!(size_of::<Option<Member>>() <= 48);
}

#[test]
fn free_slots_go_to_the_head_of_the_queue() {
    let mut choker = choker(3);
    interested(&mut choker, 0..5);
    choker.interested(key(0));
    assert_eq!(choker.poll_at(), Some(Time(0)));
    assert_eq!(rebalance(&mut choker, T0), unchoke(0..3));
    assert_eq!((choker.unchoked(), choker.waiting()), (3, 2));
    assert!(!choker.not_interested(key(3)));
    assert!(choker.not_interested(key(1)));
    choker.interested(key(3));
    assert_eq!(rebalance(&mut choker, T0), unchoke(4..5));
    choker.disconnected(key(0));
    choker.disconnected(key(0));
    assert_eq!(rebalance(&mut choker, T0), unchoke(3..4));
    assert_eq!((choker.unchoked(), choker.waiting()), (3, 0));
}

#[test]
fn credit_never_falls_below_zero_and_ends_the_term() {
    let mut choker = choker(1);
    interested(&mut choker, 0..2);
    rebalance(&mut choker, T0);
    assert_eq!(
        (choker.credit_bytes(key(0)), choker.credit_bytes(key(1))),
        (MIB, 0)
    );
    send(&mut choker, 0, MIB - 1, T0);
    assert_eq!(rebalance(&mut choker, T0), []);
    assert_eq!(choker.credit_bytes(key(0)), 1);
    send(&mut choker, 0, 5000, T0);
    send(&mut choker, 0, 5000, T0);
    assert_eq!(choker.credit_bytes(key(0)), 0);
    assert_eq!(choker.poll_at(), Some(Time(0)));
    let verdicts = rebalance(&mut choker, T0);
    assert_eq!(verdicts, [Verdict::Choke(key(0)), Verdict::Unchoke(key(1))]);
    assert_eq!(
        (choker.credit_bytes(key(0)), choker.credit_bytes(key(1))),
        (0, MIB)
    );
    send(&mut choker, 0, 9000, T0);
    assert_eq!(rebalance(&mut choker, T0), []);
}

#[test]
fn nineteen_thousand_peers_on_as_many_slots_are_all_refilled() {
    let mut choker = choker(19_000);
    interested(&mut choker, 0..19_000);
    assert_eq!(rebalance(&mut choker, T0).len(), 19_000);
    for round in 1..5 {
        let now = Time(round * 1000);
        for index in 0..19_000 {
            request(&mut choker, index, now);
            send(&mut choker, index, MIB + 5, now);
        }
        assert_eq!(rebalance(&mut choker, now), []);
        assert_eq!(
            (choker.unchoked(), choker.credit_bytes(key(77))),
            (19_000, MIB)
        );
    }
    assert_eq!(choker.clocks.len(), 19_000);
}

#[test]
fn a_thousand_peers_on_fifty_slots_have_equal_terms() {
    let mut choker = choker(50);
    interested(&mut choker, 0..1000);
    let mut unchoked: Vec<u32> = Vec::new();
    let mut terms = [0_u32; 1000];
    for round in 0..2000_u16 {
        let now = Time(u64::from(round) * 100);
        // In each round one in five has taken all of its credit.
        let done: Vec<u32> = unchoked
            .iter()
            .copied()
            .skip(usize::from(round) % 5)
            .step_by(5)
            .collect();
        for index in done {
            send(&mut choker, index, MIB, now);
        }
        for verdict in rebalance(&mut choker, now) {
            match verdict {
                Verdict::Unchoke(key) => {
                    unchoked.push(key.index);
                    terms[key.index as usize] += 1;
                }
                Verdict::Choke(key) => unchoked.retain(|&index| index != key.index),
                Verdict::Renew(_) | Verdict::Disconnect(..) => panic!("{verdict:?}"),
            }
        }
        assert_eq!(
            (unchoked.len(), choker.unchoked(), choker.waiting()),
            (50, 50, 950)
        );
    }
    let (least, most) = (terms.iter().min(), terms.iter().max());
    assert!(
        least >= Some(&15) && most.zip(least).is_some_and(|(m, l)| m - l <= 2),
        "{least:?} {most:?}"
    );
}

#[test]
fn turns_that_end_together_do_not_take_each_others_slots() {
    let mut choker = choker(3);
    interested(&mut choker, 0..4);
    rebalance(&mut choker, T0);
    for index in 0..3 {
        send(&mut choker, index, MIB, T0);
    }
    let verdicts = rebalance(&mut choker, T0);
    assert_eq!(verdicts, [Verdict::Choke(key(0)), Verdict::Unchoke(key(3))]);
    assert_eq!(choker.credit_bytes(key(1)), MIB, "a new term of its own");
    assert_eq!(choker.waiting(), 1);
}

#[test]
fn a_term_ends_by_time_though_credit_is_left() {
    let mut choker = choker(1);
    interested(&mut choker, 0..2);
    rebalance(&mut choker, T0);
    for second in 1..300 {
        choker.sent(key(0), 2000, 0, Time(second * 1000));
        assert_eq!(rebalance(&mut choker, Time(second * 1000)), []);
        assert!(
            choker
                .poll_at()
                .is_some_and(|at| at.0 > second * 1000 && at.0 <= 300_000)
        );
    }
    let verdicts = rebalance(&mut choker, Time(300_000));
    assert_eq!(verdicts, [Verdict::Choke(key(0)), Verdict::Unchoke(key(1))]);
}

#[test]
fn a_term_that_ends_by_credit_and_by_time_at_once_ends_once() {
    let mut choker = choker(1);
    interested(&mut choker, 0..3);
    rebalance(&mut choker, T0);
    let end = Time(300_000);
    request(&mut choker, 0, end);
    send(&mut choker, 0, MIB, end);
    let verdicts = rebalance(&mut choker, end);
    assert_eq!(verdicts, [Verdict::Choke(key(0)), Verdict::Unchoke(key(1))]);
    assert_eq!((choker.unchoked(), choker.waiting()), (1, 2));
}

#[test]
fn a_slot_on_which_nothing_moves_is_given_on_after_thirty_seconds() {
    let mut choker = choker(1);
    interested(&mut choker, 0..2);
    rebalance(&mut choker, T0);
    request(&mut choker, 0, Time(10_000));
    assert_eq!(rebalance(&mut choker, Time(39_999)), []);
    assert_eq!(choker.poll_at(), Some(Time(40_000)));
    let verdicts = rebalance(&mut choker, Time(40_000));
    assert_eq!(verdicts, [Verdict::Choke(key(0)), Verdict::Unchoke(key(1))]);
}

#[test]
fn whoever_never_asks_is_disconnected_after_the_second_term() {
    let mut choker = choker(1);
    interested(&mut choker, 0..2);
    rebalance(&mut choker, T0);
    let mut last = Vec::new();
    for second in 1..=90 {
        let now = Time(second * 1000);
        request(&mut choker, 1, now);
        if second == 60 {
            send(&mut choker, 1, MIB, now);
        }
        let verdicts = rebalance(&mut choker, now);
        if !verdicts.is_empty() {
            last.push((second, verdicts));
        }
    }
    let gone = Verdict::Disconnect(key(0), CloseReason::SlotUnused);
    assert_eq!(
        last,
        [
            (30, vec![Verdict::Choke(key(0)), Verdict::Unchoke(key(1))]),
            (60, vec![Verdict::Choke(key(1)), Verdict::Unchoke(key(0))]),
            (90, vec![gone, Verdict::Unchoke(key(1))]),
        ]
    );
}

#[test]
fn a_term_that_was_used_forgives_one_that_was_not() {
    let mut choker = choker(1);
    interested(&mut choker, 0..2);
    let mut now = T0;
    for term in 0..6 {
        rebalance(&mut choker, now);
        request(&mut choker, 1, now);
        if term % 4 == 2 {
            request(&mut choker, 0, now);
        }
        now = now.after(30_000);
    }
    let verdicts = rebalance(&mut choker, now);
    assert!(!verdicts.iter().any(is_disconnect), "{verdicts:?}");
}

#[test]
fn whoever_asks_and_is_held_up_only_loses_its_term() {
    let mut choker = choker(1);
    interested(&mut choker, 0..2);
    for term in 0..8 {
        let now = Time(term * 30_000);
        let verdicts = rebalance(&mut choker, now);
        assert!(!verdicts.iter().any(is_disconnect), "{verdicts:?}");
        request(&mut choker, 0, now);
        request(&mut choker, 1, now);
    }
}

#[test]
fn while_nobody_waits_even_an_unused_slot_is_kept() {
    let mut choker = choker(2);
    interested(&mut choker, 0..2);
    rebalance(&mut choker, T0);
    for second in 1..1000 {
        assert_eq!(rebalance(&mut choker, Time(second * 1000)), []);
    }
    assert_eq!(choker.unchoked(), 2);
}

#[test]
fn a_at_capacity_disconnects_whose_term_is_over_while_others_wait() {
    let mut choker = choker(2);
    interested(&mut choker, 0..3);
    rebalance(&mut choker, T0);
    send(&mut choker, 0, MIB, T0);
    send(&mut choker, 1, MIB, T0);
    let over = Verdict::Disconnect(key(0), CloseReason::TurnOver);
    let verdicts = rebalance_at_capacity(&mut choker, T0);
    assert_eq!(verdicts, [over, Verdict::Unchoke(key(2))]);
    assert_eq!(choker.credit_bytes(key(1)), MIB, "nobody else waits");
    choker.disconnected(key(0));
    assert_eq!((choker.unchoked(), choker.waiting()), (2, 0));
}

#[test]
fn at_capacity_the_choker_does_not_forgive_an_unused_term() {
    let mut choker = choker(2);
    interested(&mut choker, 0..2);
    rebalance(&mut choker, T0);
    send(&mut choker, 0, 1, T0);
    let verdicts = rebalance_at_capacity(&mut choker, Time(30_000));
    let gone = Verdict::Disconnect(key(1), CloseReason::SlotUnused);
    assert_eq!(verdicts, [gone]);
}

#[test]
fn a_peer_may_leave_in_every_state_and_leaves_nothing() {
    let mut choker = choker(2);
    interested(&mut choker, 0..4);
    rebalance(&mut choker, T0);
    send(&mut choker, 0, MIB, T0);
    for index in [0, 1, 2, 3, 9] {
        choker.disconnected(key(index));
    }
    assert_eq!(rebalance(&mut choker, Time(40_000)), []);
    assert_eq!((choker.unchoked(), choker.waiting()), (0, 0));
    assert!(choker.clocks.is_empty() && choker.spent.is_empty());
    assert_eq!(choker.poll_at(), None);
}

#[test]
fn credit_used_up_by_a_peer_that_left_and_came_back_does_not_end_its_new_term() {
    let mut choker = choker(1);
    interested(&mut choker, 0..1);
    rebalance(&mut choker, T0);
    send(&mut choker, 0, MIB, T0);
    choker.not_interested(key(0));
    choker.interested(key(0));
    interested(&mut choker, 1..2);
    assert_eq!(rebalance(&mut choker, T0), unchoke(0..1));
    assert_eq!(choker.credit_bytes(key(0)), MIB);
}

#[test]
fn a_late_word_about_an_old_connection_does_not_reach_the_new_one() {
    let mut choker = choker(1);
    let new = PeerKey {
        index: 0,
        generation: 200,
    };
    choker.begun(new, origin(0), T0);
    choker.connected(new, T0);
    choker.interested(new);
    rebalance(&mut choker, T0);
    send(&mut choker, 0, MIB, T0);
    choker.disconnected(key(0));
    assert_eq!(choker.credit_bytes(key(0)), 0);
    assert_eq!(choker.credit_bytes(new), MIB);
}

#[test]
fn slots_that_are_taken_away_are_given_back_as_terms_end_though_nobody_waits() {
    let mut choker = choker(3);
    interested(&mut choker, 0..3);
    rebalance(&mut choker, T0);
    let fewer = ChokerConfig {
        max_unchoked: 1,
        ..choker.config()
    };
    choker.configure(fewer);
    assert_eq!(rebalance(&mut choker, T0), []);
    send(&mut choker, 0, MIB, T0);
    send(&mut choker, 1, MIB, T0);
    send(&mut choker, 2, MIB, T0);
    let verdicts = rebalance(&mut choker, T0);
    assert_eq!(verdicts, [0, 1].map(|index| Verdict::Choke(key(index))));
    assert_eq!((choker.unchoked(), choker.waiting()), (1, 2));
}

fn gives_way(choker: &mut Choker, newcomer: u32, now: Time) -> Option<(u32, CloseReason)> {
    let loser = choker.give_way(origin(newcomer), now);
    loser.map(|(key, reason)| (key.index, reason))
}

#[test]
fn the_peer_that_was_idle_longest_gives_way_at_capacity() {
    let mut choker = choker(0);
    connected(&mut choker, 2, Time(5));
    connected(&mut choker, 1, Time(7));
    assert_eq!(gives_way(&mut choker, 8, Time(60_004)), None);
    let idle = |index| Some((index, CloseReason::IdleAtCapacity));
    assert_eq!(gives_way(&mut choker, 9, Time(60_007)), idle(2));
    assert_eq!(gives_way(&mut choker, 9, Time(60_007)), idle(1));
    assert_eq!(gives_way(&mut choker, 9, Time(90_000)), None);
    assert!(choker.idle.is_empty());
    assert_eq!(choker.connections_from(origin(1)), 0);
}

#[test]
fn interest_ends_idleness_and_only_what_is_given_restarts_it() {
    let mut choker = choker(0);
    for index in 0..3 {
        connected(&mut choker, index, T0);
    }
    choker.interested(key(0));
    choker.active(key(0), Time(1));
    choker.active(key(1), Time(2));
    choker.interested(key(2));
    choker.not_interested(key(2));
    choker.not_interested(key(2));
    let idle = |index| Some((index, CloseReason::IdleAtCapacity));
    assert_eq!(gives_way(&mut choker, 9, Time(60_001)), idle(2));
    assert_eq!(gives_way(&mut choker, 8, Time(60_001)), None);
    assert_eq!(gives_way(&mut choker, 9, Time(60_002)), idle(1));
    choker.not_interested(key(0));
    assert_eq!(gives_way(&mut choker, 9, Time(60_002)), idle(0));
}

#[test]
fn a_block_counts_as_life() {
    let mut choker = choker(1);
    interested(&mut choker, 0..1);
    rebalance(&mut choker, T0);
    send(&mut choker, 0, 32 * 1024, Time(50_000));
    choker.not_interested(key(0));
    assert_eq!(gives_way(&mut choker, 8, Time(109_999)), None);
    assert!(gives_way(&mut choker, 9, Time(110_000)).is_some());
}

#[test]
fn a_handshake_that_is_not_completed_gives_way_first() {
    let mut choker = choker(0);
    connected(&mut choker, 0, T0);
    for index in 1..4 {
        choker.begun(key(index), origin(index), Time(60_000));
    }
    choker.connected(key(1), Time(60_000));
    choker.disconnected(key(2));
    let idle = Some((0, CloseReason::IdleAtCapacity));
    assert_eq!(gives_way(&mut choker, 9, Time(60_999)), idle);
    let gave_way = Some((3, CloseReason::GaveWay));
    assert_eq!(gives_way(&mut choker, 9, Time(61_000)), gave_way);
    assert_eq!(gives_way(&mut choker, 9, Time(61_000)), None);
}

#[test]
fn a_crowd_gives_way_to_others_and_not_to_its_own() {
    let mut choker = choker(2);
    interested(&mut choker, 0..2);
    crowd(&mut choker, 2..6, "9.9.9.9");
    rebalance(&mut choker, T0);
    let own = Origin::of("9.9.9.9".parse().unwrap());
    assert_eq!(choker.give_way(own, T0), None);
    // Two more than the newcomer would have then: the last two stay.
    let gave_way = Some(CloseReason::GaveWay);
    for _ in 0..3 {
        let loser = gives_way(&mut choker, 9, T0);
        assert_eq!(loser.map(|(_, reason)| reason), gave_way);
    }
    assert_eq!(gives_way(&mut choker, 9, T0), None);
    assert_eq!(choker.connections_from(own), 1);
}

#[test]
fn an_address_that_gave_way_or_was_refused_rests() {
    let mut choker = choker(0);
    for index in 0..3 {
        connected(&mut choker, index, T0);
    }
    let long_after = Time(60_000);
    let idle = |index| Some((index, CloseReason::IdleAtCapacity));
    assert_eq!(gives_way(&mut choker, 8, Time(59_999)), None, "refused");
    assert_eq!(gives_way(&mut choker, 9, long_after), idle(0));
    for resting in [8, 0] {
        assert_eq!(gives_way(&mut choker, resting, long_after), None);
    }
    assert_eq!(gives_way(&mut choker, 10, long_after), idle(1));
    // Its calls meanwhile have made the rest no longer.
    let rested = long_after.after(origin::REST_MS);
    assert_eq!(gives_way(&mut choker, 0, rested), idle(2));
}

#[test]
fn a_stranger_gets_a_place_though_those_who_say_nothing_call_all_the_time() {
    let mut choker = choker(0);
    let (places, callers) = (50, 90);
    let occupy = |choker: &mut Choker, place: u32, caller: u32, now| {
        let generation = 100 + caller;
        let key = PeerKey {
            index: place,
            generation,
        };
        choker.begun(key, origin(caller), now);
    };
    for place in 0..places {
        occupy(&mut choker, place, place, T0);
    }
    for now in (1..60_000).step_by(20).map(Time) {
        // All who have no place call in each of these moments.
        for caller in 0..callers {
            if choker.connections_from(origin(caller)) == 0
                && let Some((place, _)) = gives_way(&mut choker, caller, now)
            {
                occupy(&mut choker, place, caller, now);
            }
        }
        if now.0 % 1_000 == 1 && now.0 > 1_000 {
            let stranger = u32::try_from(now.0).unwrap();
            let (place, _) = gives_way(&mut choker, stranger, now).expect("it is not refused");
            // When it has gone, whoever calls has its place, rested or not.
            let without = (0..callers).find(|caller| choker.connections_from(origin(*caller)) == 0);
            occupy(&mut choker, place, without.unwrap(), now);
        }
    }
}

#[test]
fn the_one_of_a_crowd_that_loses_least_gives_way() {
    let mut choker = choker(1);
    crowd(&mut choker, 0..3, "2001:db8:0:7::1");
    rebalance(&mut choker, T0);
    choker.not_interested(key(2));
    let order = [2, 1].map(|index| Some((index, CloseReason::GaveWay)));
    assert_eq!([0; 2].map(|_| gives_way(&mut choker, 9, T0)), order);
}

#[test]
fn the_addresses_of_a_network_have_the_share_of_a_few() {
    let mut choker = choker(0);
    for index in 0..9 {
        crowd(&mut choker, index..index + 1, &format!("9.9.9.{index}"));
    }
    for _ in 0..5 {
        assert!(gives_way(&mut choker, 77, T0).is_some());
    }
    assert_eq!(gives_way(&mut choker, 77, T0), None);
}

#[test]
fn a_peer_of_few_takes_a_slot_from_a_crowd_at_once() {
    let mut choker = choker(3);
    crowd(&mut choker, 0..9, "9.9.9.9");
    assert_eq!(rebalance(&mut choker, T0), unchoke(0..3));
    request(&mut choker, 0, T0);
    interested(&mut choker, 20..24);
    let verdicts = rebalance(&mut choker, T0);
    // Without use before with use, and none of them when the crowd has one left.
    let expected = [
        Verdict::Choke(key(1)),
        Verdict::Unchoke(key(20)),
        Verdict::Choke(key(2)),
        Verdict::Unchoke(key(21)),
    ];
    assert_eq!(verdicts, expected);
    assert_eq!(rebalance(&mut choker, T0), []);
    assert_eq!((choker.unchoked(), choker.waiting()), (3, 10));
}

#[test]
fn an_address_has_one_turn_in_a_round_whatever_its_peers_are() {
    let mut choker = choker(1);
    crowd(&mut choker, 0..50, "9.9.9.9");
    interested(&mut choker, 50..52);
    rebalance(&mut choker, T0);
    let mut terms = [0_u32; 3];
    for _ in 0..30 {
        let holder = choker.unchoked_since().next().unwrap().0.index;
        terms[holder.saturating_sub(49) as usize] += 1;
        send(&mut choker, holder, MIB, T0);
        rebalance(&mut choker, T0);
    }
    assert_eq!(terms, [10, 10, 10]);
}

#[test]
fn who_leaves_and_comes_again_waits_no_less() {
    let mut choker = choker(1);
    interested(&mut choker, 0..2);
    rebalance(&mut choker, T0);
    let mut served = Vec::new();
    for index in 10..18 {
        // One address, with a new peer whenever the last has had its term.
        crowd(&mut choker, index..index + 1, "9.9.9.9");
        let holder = choker.unchoked_since().next().unwrap().0.index;
        served.push(holder);
        send(&mut choker, holder, MIB, T0);
        rebalance(&mut choker, T0);
        if holder >= 10 {
            choker.disconnected(key(holder));
        }
    }
    assert_eq!(served.iter().filter(|&&index| index == 0).count(), 3);
    assert_eq!(served.iter().filter(|&&index| index == 1).count(), 3);
}

#[test]
fn tiny_blocks_cost_more_than_their_bytes() {
    let mut choker = choker(1);
    interested(&mut choker, 0..2);
    rebalance(&mut choker, T0);
    choker.sent(key(0), 255, 255, T0);
    assert_eq!(choker.credit_bytes(key(0)), BLOCK_CHARGE_BYTES);
    choker.sent(key(0), 1, 1, T0);
    let verdicts = rebalance(&mut choker, T0);
    assert_eq!(verdicts, [Verdict::Choke(key(0)), Verdict::Unchoke(key(1))]);
}

#[test]
fn a_slot_is_not_kept_by_a_trickle_nor_by_requests_of_a_peer_that_does_not_read() {
    let mut choker = choker(2);
    interested(&mut choker, 0..4);
    rebalance(&mut choker, T0);
    for second in 0..30 {
        let now = Time(second * 1000);
        choker.requested(key(0), 1, true, now);
        choker.requested(key(1), 16 * 1024, false, now);
        assert_eq!(rebalance(&mut choker, now), []);
    }
    assert_eq!(rebalance(&mut choker, Time(30_000)).len(), 4);
    assert_eq!(choker.credit_bytes(key(0)), 0);
}

#[test]
fn a_peer_that_waits_for_us_keeps_its_slot() {
    let mut choker = choker(1);
    interested(&mut choker, 0..2);
    rebalance(&mut choker, T0);
    request(&mut choker, 0, T0);
    choker.held_up(key(0), Time(20_000));
    assert_eq!(rebalance(&mut choker, Time(49_999)), []);
    assert_eq!(rebalance(&mut choker, Time(50_000)).len(), 2);
}

#[test]
fn few_idle_peers_have_a_slot_and_they_give_it_back() {
    let mut choker = choker(1000);
    for index in 0..200 {
        connected(&mut choker, index, T0);
    }
    let verdicts = rebalance(&mut choker, T0);
    assert_eq!(verdicts, unchoke(0..64));
    choker.interested(key(0));
    connected(&mut choker, 200, T0);
    assert_eq!(rebalance(&mut choker, T0), unchoke(200..201));
    let given_back = rebalance(&mut choker, Time(30_000));
    assert_eq!(given_back.len(), 64);
    assert!(given_back.contains(&Verdict::Choke(key(200))));
    assert_eq!((choker.unchoked(), choker.waiting()), (1, 0));
    connected(&mut choker, 201, T0);
    assert_eq!(choker.waiting(), 1);
}

/// What fairness costs for each slot.
#[test]
fn a_term_is_small() {
    assert!(size_of::<Term>() <= 64, "{}", size_of::<Term>());
}

fn of_bytes(credit_bytes: u64) -> TermLength {
    TermLength {
        credit_bytes,
        unused_slot_ms: 30_000,
        tells_renewal: false,
    }
}

#[test]
fn a_long_term_is_followed_by_as_many_rounds_without_one() {
    let mut choker = choker(1);
    interested(&mut choker, 0..3);
    assert_eq!(rebalance(&mut choker, T0), unchoke(0..1));
    choker.set_term(key(0), of_bytes(3 * MIB));
    let mut order = vec![0];
    for _ in 0..8 {
        let holder = *order.last().unwrap();
        send(
            &mut choker,
            holder,
            if holder == 0 { 3 * MIB } else { MIB },
            T0,
        );
        let verdicts = rebalance(&mut choker, T0);
        let [Verdict::Choke(from), Verdict::Unchoke(to)] = verdicts[..] else {
            panic!("{verdicts:?}");
        };
        assert_eq!(from, key(holder));
        if to == key(0) {
            choker.set_term(to, of_bytes(3 * MIB));
        }
        order.push(to.index);
    }
    // Each of the others has three terms of 1 MiB for one of 3 MiB.
    assert_eq!(order, [0, 1, 2, 1, 2, 1, 2, 0, 1]);
}

#[test]
fn a_set_term_ends_when_its_slot_is_unused_for_as_long_as_was_set() {
    let mut choker = choker(1);
    interested(&mut choker, 0..2);
    rebalance(&mut choker, T0);
    let length = TermLength {
        unused_slot_ms: 2_000,
        ..of_bytes(MIB)
    };
    choker.set_term(key(0), length);
    request(&mut choker, 0, Time(500));
    assert_eq!(rebalance(&mut choker, Time(2_499)), []);
    let verdicts = rebalance(&mut choker, Time(2_500));
    assert_eq!(verdicts, [Verdict::Choke(key(0)), Verdict::Unchoke(key(1))]);
}

#[test]
fn a_term_that_is_ended_early_is_no_fault_of_the_peer() {
    let mut choker = choker(1);
    interested(&mut choker, 0..2);
    rebalance(&mut choker, T0);
    for round in 1..6 {
        let holder = key((round + 1) % 2);
        choker.end_term(holder);
        choker.end_term(holder);
        assert_eq!(choker.credit_bytes(holder), 0);
        let other = key(round % 2);
        let verdicts = rebalance(&mut choker, T0);
        assert_eq!(verdicts, [Verdict::Choke(holder), Verdict::Unchoke(other)]);
    }
}

#[test]
fn an_unused_term_whose_renewal_is_told_does_not_end_the_peer() {
    let mut choker = choker(2);
    interested(&mut choker, 0..2);
    rebalance(&mut choker, T0);
    let length = TermLength {
        unused_slot_ms: 2_000,
        tells_renewal: true,
        ..of_bytes(MIB)
    };
    choker.set_term(key(0), length);
    for second in [2, 4, 6] {
        let verdicts = rebalance_at_capacity(&mut choker, Time(second * 1000));
        assert_eq!(verdicts, [Verdict::Renew(key(0))]);
    }
}

#[test]
fn a_renewal_is_told_if_that_was_set() {
    let mut choker = choker(2);
    interested(&mut choker, 0..2);
    rebalance(&mut choker, T0);
    let length = TermLength {
        tells_renewal: true,
        ..of_bytes(MIB)
    };
    choker.set_term(key(0), length);
    send(&mut choker, 0, MIB, T0);
    send(&mut choker, 1, MIB, T0);
    assert_eq!(rebalance(&mut choker, T0), [Verdict::Renew(key(0))]);
    assert_eq!(choker.credit_bytes(key(0)), MIB);
}

#[test]
fn a_peer_from_elsewhere_takes_a_slot_from_a_crowded_network_at_once() {
    let mut choker = choker(50);
    for index in 0..450 {
        crowd(
            &mut choker,
            index..index + 1,
            &format!("9.9.9.{}", index % 256),
        );
    }
    rebalance(&mut choker, T0);
    for round in 0..40 {
        let newcomer = 1000 + round;
        let now = Time(u64::from(round) * 200);
        interested(&mut choker, newcomer..newcomer + 1);
        let verdicts = rebalance(&mut choker, now);
        assert!(
            verdicts.contains(&Verdict::Unchoke(key(newcomer))),
            "{round}: {verdicts:?}"
        );
        request(&mut choker, newcomer, now);
        send(&mut choker, newcomer, 16 * 1024, now);
    }
}

#[test]
fn a_crowd_far_behind_in_the_table_is_found_by_one_of_the_next_newcomers() {
    let mut choker = choker(0);
    let strangers = u32::try_from(2 * SEARCHED_MEMBERS).unwrap();
    for index in 0..strangers {
        connected(&mut choker, index, T0);
    }
    crowd(&mut choker, strangers..strangers + 9, "9.9.9.9");
    let losers: Vec<_> = (0..3)
        .filter_map(|_| choker.give_way(origin(1 << 20), T0))
        .collect();
    assert_eq!(losers.len(), 1, "{losers:?}");
}
