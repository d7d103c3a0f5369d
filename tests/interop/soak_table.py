"""What was done to whom, and which outcomes that allows: the table against which soak.py holds every request. How requests
are sent, and how harm is done, never enters.

An outcome is "ok", "STATUS TOKEN" for an answer that the edge or a worker made up (the error of its Proxy-Status), "cut" for one
that broke after it had begun, "silent" and "dropped" for a connection that ended without a byte of an answer (a kept one, a
fresh one), "behind" for a request that stood behind one that was cut, "refused" for one that could not be opened, "left" where the client itself left, "hang", or "wrong: …"."""

import collections
import time

# How long after its end something may still show itself: threads, processes and this script share few cores with others. Where
# this script is late itself, so much longer.
ECHO_S = 3.0
# Of the edge's configuration, as soak.py writes it.
DRAIN_MAX_S = 10.0
BODY_STALL_S = 15.0
RETRIES_MAX = 2
# The longest that a request of this soak may take by the edge's own bounds: it waits, each of its dispatches waits for a head, its
# body stalls twice, and the machine is slow.
REQUEST_S_MAX = 150.0

# The line for a request that nobody may have had.
UNTAKEN = "its connection had no request, and ended while another took over"
# What becomes of a request when nobody does any harm.
USUAL = {
    "cut": {"cut", "502 connection_terminated", "502 http_protocol_error"},
    "mute": {"502 connection_terminated"},
    "hang": {"504 http_response_timeout"},
    "bad": {"502 http_protocol_error"},
    "badly": {"cut", "502 connection_terminated", "502 http_protocol_error"},
    "half head": {"408 http_request_error"},
}


class Event:
    """Something that is done to an edge, or to links of some pools. `losses`: so many links may be lost by it."""

    def __init__(self, kind, pools, losses, note):
        self.kind, self.pools, self.losses, self.note = kind, pools, losses, note
        self.began, self.ended = time.monotonic(), None

    def end(self):
        self.ended = time.monotonic()

    def touches(self, began, ended, echo_s):
        return self.began <= ended and (self.ended is None or began <= self.ended + echo_s)

    def seconds(self):
        return (self.ended or time.monotonic()) - self.began


class Diary:
    """All events, and what is known of who is there."""

    def __init__(self):
        self.began = time.monotonic()
        self.echo_s, self.ticked = ECHO_S, time.monotonic()
        self.events = []
        self.present = {}  # of each pool: who surely has a link
        self.alone = collections.defaultdict(list)  # of each pool: [since, until] in which that may have been nobody
        self.crowds = collections.defaultdict(collections.deque)  # of each pool: (when, requests under way)
        self.routed = []  # (when, whether pool "extra" is there: True, False, or None while that changes)

    def event(self, kind, pools=(), losses=0, note="", lasts=False):
        event = Event(kind, set(pools), losses, note)
        self.events.append(event)
        if not lasts:
            event.end()
        return event

    def lag(self, seconds):
        """This script did not get its turn for so long."""
        self.event("lag", note=f"{seconds:.1f} s").began -= seconds
        self.echo_s = max(self.echo_s, ECHO_S + 3 * seconds)

    def is_late(self, ask):
        """This script did not get its turn, now or while this request ran."""
        return time.monotonic() - self.ticked > 0.7 or any(self.during(ask, "lag"))

    def tail(self, lines=30):
        shown = self.events[-lines:]
        return "\n".join(f"    {e.began - self.began:8.2f} s  {e.kind} {' '.join(sorted(e.pools))} {e.note}" for e in shown)

    def during(self, ask, *kinds):
        """Events of these kinds that may have met this request."""
        for event in reversed(self.events):
            if event.kind in kinds and event.touches(ask.sent, ask.done, self.echo_s) and (not event.pools or ask.pool in event.pools):
                yield event

    # ---- who is there ----

    def is_up(self, pool, who):
        present = self.present.setdefault(pool, set())
        if not present and self.alone[pool] and self.alone[pool][-1][1] is None:
            self.alone[pool][-1][1] = time.monotonic()
        present.add(who)

    def may_be_down(self, pool, who):
        present = self.present.setdefault(pool, set())
        present.discard(who)
        if not present and (not self.alone[pool] or self.alone[pool][-1][1] is not None):
            self.alone[pool].append([time.monotonic(), None])

    def may_be_alone(self, ask):
        return any(since <= ask.done and (until is None or ask.sent <= until + self.echo_s) for since, until in self.alone[ask.pool])

    # ---- how many ask ----

    def crowd(self, pool, requests):
        crowds = self.crowds[pool]
        crowds.append((time.monotonic(), requests))
        if len(crowds) > 20_000:
            crowds.popleft()

    def peak(self, ask):
        return max((n for when, n in self.crowds[ask.pool] if ask.sent - self.echo_s <= when <= ask.done), default=0)

    # ---- what is routed ----

    def routes_extra(self, whether):
        self.routed.append((time.monotonic(), whether))

    def extra_was(self, ask):
        """Everything that the edge may have held for true about pool "extra" while this request ran. Who leaves serves by what
        was true before."""
        held = {None}
        for when, whether in self.routed:
            if when > ask.done:
                break
            held = {whether} if whether is not None and when + self.echo_s < ask.sent else held | {whether}
        return held


class Table:
    """Judges requests by what was going on. `pools`: the bounds of each, as they are written into the configuration."""

    def __init__(self, diary, pools):
        self.diary, self.pools = diary, pools
        self.rows = collections.Counter()

    def judge(self, ask):
        """By which line of the table this outcome is allowed; None if it is not."""
        row = self.row(ask)
        self.rows[(ask.outcome.split(":")[0], row or "!")] += 1
        return row

    def row(self, ask):
        outcome, diary = ask.outcome, self.diary
        if ask.took() > REQUEST_S_MAX:
            return None
        if outcome in ("left", "behind"):
            return "the client left" if outcome == "left" else "the request before it on its connection was cut"
        if ask.pool == "extra" and outcome == "404 destination_not_found":
            return "the pool was not there" if diary.extra_was(ask) & {False, None} - {True} else None
        if outcome in USUAL.get(ask.deed, {"ok"}):
            if ask.pool == "extra" and outcome == "ok" and diary.extra_was(ask) == {False}:
                return None  # it was answered by a pool that is not there
            return "as usual"
        row = getattr(self, "on_" + outcome.replace(" ", "_"), lambda ask: None)(ask)
        return row or self.ran_out(ask)

    # ---- a line for each outcome that somebody's harm explains ----

    def on_502_connection_terminated(self, ask):
        """A lost link: what may be sent again is, so many times."""
        losses = sum(event.losses for event in self.diary.during(ask, "kill", "link reset", "stop", "stall"))
        if losses == 0:
            return None
        if not ask.may_repeat():
            return "its link was lost, and it may have run"
        return "a link was lost under each of its dispatches" if losses > RETRIES_MAX else None

    def on_cut(self, ask):
        if any(event.losses for event in self.diary.during(ask, "kill", "link reset", "stop", "stall")):
            return "its link was lost after it was answered"
        stalls = [event for event in self.diary.during(ask, "stop", "stall") if event.seconds() >= BODY_STALL_S - 1]
        return "its worker stopped in the middle of it" if stalls else None

    def on_502_http_response_timeout(self, ask):
        stalls = [event for event in self.diary.during(ask, "stop", "stall") if event.seconds() >= BODY_STALL_S - 1]
        return "its worker did not read" if stalls else None

    def on_504_http_response_timeout(self, ask):
        stalled = any(self.diary.during(ask, "stop", "stall")) or self.diary.is_late(ask) or ask.deed == "slow sender"
        return "its worker was stopped" if stalled and ask.took() >= self.pools[ask.pool].head_s - 0.5 else None

    def on_503_connection_timeout(self, ask):
        return "it waited as long as it may" if ask.took() >= self.pools[ask.pool].wait_s - 0.2 else None

    def on_503_connection_limit_reached(self, ask):
        return "the queue was full" if self.diary.peak(ask) >= self.pools[ask.pool].queue_max else None

    def on_503_destination_unavailable(self, ask):
        if not self.pools[ask.pool].holds and self.diary.may_be_alone(ask):
            return "the pool had no worker, and does not hold"
        if ask.pool == "extra" and self.diary.extra_was(ask) & {False, None}:
            return "its pool went, and its workers with it"
        # Requests do not go over to another process, and the older one has one link of each pool.
        replaced = any(self.diary.during(ask, "upgrade"))
        ended = any(self.diary.during(ask, "kill", "link reset", "stop", "stall", "term", "withdraw"))
        return "the last link of a process that was replaced has ended" if replaced and ended else None

    def on_408_http_request_error(self, ask):
        return "this script was too slow" if self.diary.is_late(ask) else None

    def on_silent(self, ask):
        """RFC 9112 §9.3.1: a kept connection may end at any time. Here: when somebody else has taken over."""
        if ran_out := self.ran_out(ask):
            return ran_out
        ends = [*self.diary.during(ask, "reload", "upgrade", "address")]
        return UNTAKEN if ends else None

    def on_refused(self, ask):
        return "the address was given up" if ask.at_side else None

    def on_dropped(self, ask):
        """A client that has connected and says nothing is told to go after a second, too."""
        if self.diary.is_late(ask) and any(self.diary.during(ask, "reload", "upgrade")):
            return UNTAKEN
        return "the address was given up" if ask.at_side and any(self.diary.during(ask, "address")) else None

    def ran_out(self, ask):
        """What a configuration that was replaced has begun has so long to end, and then ends anyhow."""
        if ask.outcome not in ("cut", "silent", "dropped", "408 http_request_error", "503 destination_unavailable"):
            return None
        for event in self.diary.events:
            if event.kind in ("reload", "upgrade") and event.began + DRAIN_MAX_S - 0.1 <= ask.done:
                if event.ended is None or ask.sent <= event.ended + self.diary.echo_s:
                    return "drain_max ran out"
        return None
