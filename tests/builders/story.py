"""Write async page fault histories as readable test cases.

    story = Story()
    story.pv_life(vcpu=0, token=0x1001, gva=0x7F000, at=1_000_000)
    story.pv_life(vcpu=0, at=5_000_000, without=ANSWER)        # its wakeup was lost ...
    story.progress(vcpu=0, start=6_000_000, end=900_000_000)   # ... and the vCPU went on
    story.write(tmp_path / "trace.dat")

Each life emits the whole sequence that a host records (order as in captures of kernels 6.1 and 6.12);
every event has a label and can be left out with ``without``. Times are ns of the trace clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .tracedat import Event, Missed, Record, TraceDat

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from .formats import Value

VECTOR = 0xF3
WAKE_ALL = 0xFFFFFFFF
ASYNC_PF_EXECUTE = 0xFFFFFFFFC0A51230
MSR_EN, MSR_INT, MSR_ACK = 0x4B564D02, 0x4B564D06, 0x4B564D07
ISA_VMX, ISA_SVM = 1, 2
EXITS = {
    ISA_SVM: {"fault": 0x400, "msr": 0x7C, "interrupt": 0x60, "hlt": 0x78, "window": 0x64},
    ISA_VMX: {"fault": 48, "msr": 32, "interrupt": 1, "hlt": 12, "window": 7},
}

ANSWER = frozenset({"ready", "accepted", "injected", "ack_exit", "ack"})
"""Everything that shows that the guest was told."""
DELIVERY = frozenset({"accepted", "injected", "ack_exit", "ack"})
ACK = frozenset({"ack_exit", "ack"})
WORKQUEUE = frozenset({"queued", "started", "finished"})


class Story:
    """A history of one or more VMs; times may be given in any order."""

    def __init__(self, *, isa: int = ISA_SVM, cpus: int = 2, worker: int = 50) -> None:
        """Start an empty history.

        Args:
            isa: ISA_SVM or ISA_VMX, decides the exit reasons.
            cpus: host CPUs; vCPU n runs on CPU n modulo this.
            worker: thread id of the kworker of CPU 0; CPU n has the n-th after it.
        """
        self.isa = isa
        self.cpus = cpus
        self.worker = worker
        self.records: list[Record] = []
        self.comms: dict[int, str] = {worker + n: f"kworker/{n}:1" for n in range(cpus)}
        self._ids: dict[int, int] = {}

    def tid(self, vcpu: int, vm: int = 0) -> int:
        """Return the thread id of a vCPU."""
        tid = 101 + 100 * vm + vcpu
        self.comms[tid] = f"CPU {vcpu}/KVM"
        return tid

    def event(self, at: int, name: str, tid: int, cpu: int = 0, /, **fields: Value) -> Story:
        """Add any event."""
        self.records.append(Event(at, cpu, tid, name, fields))
        return self

    def pv_life(
        self,
        *,
        at: int,
        vcpu: int = 0,
        token: int | None = None,
        gva: int | None = None,
        completed: int | None = None,
        ready: int | None = None,
        injected: int | None = None,
        acked: int | None = None,
        vector: int = VECTOR,
        without: Collection[str] = (),
        cpu: int | None = None,
        vm: int = 0,
    ) -> int:
        """Add a life of which the guest is told by #PF and interrupt.

        Args:
            at: not_present.
            vcpu: vCPU number.
            token: null takes the next id of the vCPU.
            gva: null takes a page of its own.
            completed: end of the work; default 500 us after ``at``.
            ready: default 20 us after ``completed``.
            injected: of the interrupt; default 5 us after ``ready``.
            acked: exit of the ACK write; default 30 us after ``injected``.
            vector: of the page-ready interrupt.
            without: labels of events to leave out.
            cpu: host CPU of the vCPU thread.
            vm: which VM.

        Returns:
            The token.
        """
        completed = completed if completed is not None else at + 500_000
        ready = ready if ready is not None else completed + 20_000
        injected = injected if injected is not None else ready + 5_000
        acked = acked if acked is not None else injected + 30_000
        life = _Life(self, vcpu, token, gva, cpu, vm, without)
        life.fault(at)
        life.to_worker(at)
        life.add(at + 3_200, "inj_exception", "kvm_inj_exception", exception=14, has_error=1)
        life.entry(at + 3_400, "entry")
        life.exit(completed - 3_000, "kick_exit", "interrupt")
        life.switch(completed - 2_000, "worker_back", "R", to_worker=True)
        life.complete(completed)
        life.switch(completed + 600, "from_worker", "I", to_worker=False)
        life.answer(ready, vector)
        life.add(injected, "injected", "kvm_inj_virq", vector=vector)
        life.entry(injected + 200, "entry_ready")
        life.acknowledge(acked)
        return life.token

    def halt_life(
        self,
        *,
        at: int,
        vcpu: int = 0,
        token: int | None = None,
        gva: int | None = None,
        completed: int | None = None,
        ready: int | None = None,
        without: Collection[str] = (),
        cpu: int | None = None,
        vm: int = 0,
    ) -> int:
        """Add a life during which only the vCPU sleeps; arguments as for ``pv_life``."""
        completed = completed if completed is not None else at + 500_000
        ready = ready if ready is not None else completed + 20_000
        life = _Life(self, vcpu, token, gva, cpu, vm, without)
        life.fault(at)
        life.to_worker(at)
        life.switch(at + 3_000, "vcpu_sleeps", "S", to_worker=False, idle=True)
        life.switch(completed - 2_000, "worker_back", "idle", to_worker=True)
        life.wake(completed - 1_000, "vcpu_wakes", worker=False)
        life.complete(completed)
        life.switch(completed + 600, "from_worker", "I", to_worker=False)
        life.add(ready, "ready", "kvm_async_pf_ready", token=life.token, gva=life.gva)
        life.entry(ready + 500, "entry_ready")
        return life.token

    def repeated(self, *, at: int, gva: int, vcpu: int = 0, vm: int = 0, cpu: int | None = None) -> Story:
        """Add a fault on a page that is outstanding already."""
        life = _Life(self, vcpu, 0, gva, cpu, vm, ())
        life.exit(at - 6_000, "exit", "fault")
        life.add(at - 1_000, "try", "kvm_try_async_get_page", gva=gva, gfn=gva >> 12)
        life.add(at, "repeated", "kvm_async_pf_repeated_fault", gva=gva, gfn=gva >> 12)
        return self

    def progress(
        self,
        *,
        start: int,
        end: int,
        vcpu: int = 0,
        every: int = 1_000_000,
        vm: int = 0,
        in_guest: bool = True,
    ) -> Story:
        """Let the vCPU leave and enter the guest again and again.

        Args:
            start: first exit (or entry, see ``in_guest``).
            end: not later than this.
            vcpu: vCPU number.
            every: ns between exits.
            vm: which VM.
            in_guest: the vCPU is in the guest at ``start`` and is left there.
        """
        life = _Life(self, vcpu, 0, 0, None, vm, ())
        for at in range(start, end - every // 2, every):
            first, second = (at, at + every // 2) if in_guest else (at + every // 2, at)
            life.exit(first, "exit", "interrupt")
            life.entry(second, "entry")
        return self

    def switch(self, at: int, before: int, after: int, *, state: int = 0, cpu: int = 0) -> Story:
        """Add a context switch; ``state`` 0 runnable, 1 asleep, 2 uninterruptible."""
        return self.event(at, "sched_switch", before, cpu, prev_pid=before, prev_state=state, next_pid=after)

    def interrupt(self, *, at: int, vector: int = 0xEC, vcpu: int = 0, vm: int = 0) -> Story:
        """Add the delivery of another interrupt: guest interrupts are on."""
        life = _Life(self, vcpu, 0, 0, None, vm, ())
        life.exit(at - 400, "exit", "interrupt")
        life.accept(at - 200, vector)
        life.add(at, "injected", "kvm_inj_virq", vector=vector)
        life.entry(at + 200, "entry")
        return self

    def enable(
        self, *, at: int, vcpu: int = 0, vm: int = 0, value: int = 0xD938009, acked: int | None = None
    ) -> Story:
        """Add the guest's MSR writes that turn async page faults on, and the wake-all that follows."""
        life = _Life(self, vcpu, WAKE_ALL, 0, None, vm, ())
        for step, ecx, data in ((0, MSR_INT, VECTOR), (2_000, MSR_EN, value)):
            life.exit(at + step, "exit", "msr")
            life.add(at + step + 400, "msr", "kvm_msr", write=1, ecx=ecx, data=data)
            if ecx == MSR_EN:
                life.answer(at + step + 600, VECTOR)
            life.entry(at + step + 900, "entry")
        acked = acked if acked is not None else at + 100_000
        life.acknowledge(acked)
        return self

    def disable(self, *, at: int, vcpu: int = 0, vm: int = 0) -> Story:
        """Add the MSR write that turns async page faults off: outstanding faults get no answer."""
        life = _Life(self, vcpu, 0, 0, None, vm, ())
        life.exit(at, "exit", "msr")
        life.add(at + 400, "msr", "kvm_msr", write=1, ecx=MSR_EN, data=0)
        life.entry(at + 600, "entry")
        return self

    def lost(self, *, at: int, cpu: int, count: int | None = None) -> Story:
        """Add a loss: records of this CPU are missing before ``at``."""
        self.records.append(Missed(at, cpu, count))
        return self

    def trace(self, **options: Any) -> TraceDat:
        """Return the history as a file to be; options are those of TraceDat."""
        # A CPU without a single record would hide any thread: the file has the CPUs that the history uses.
        options.setdefault("cpus", 1 + max((record.cpu for record in self.records), default=self.cpus - 1))
        options.setdefault("kallsyms", f"{ASYNC_PF_EXECUTE:x} t async_pf_execute\t[kvm]\n")
        options.setdefault("cmdlines", dict(sorted(self.comms.items())))
        return TraceDat(**options).add(*self.records)

    def write(self, path: Path, **options: Any) -> Path:
        """Write the history to a trace.dat."""
        return self.trace(**options).write(path)

    def next_token(self, tid: int, vcpu: int) -> int:
        """Return a token with the next id of this vCPU thread."""
        self._ids[tid] = self._ids.get(tid, 0) + 1
        return self._ids[tid] << 12 | vcpu


class _Life:
    """The events of one life, all on one vCPU thread and one worker."""

    def __init__(
        self,
        story: Story,
        vcpu: int,
        token: int | None,
        gva: int | None,
        cpu: int | None,
        vm: int,
        without: Collection[str],
    ) -> None:
        self.story = story
        self.vcpu = vcpu
        self.tid = story.tid(vcpu, vm)
        self.cpu = cpu if cpu is not None else vcpu % story.cpus
        self.worker = story.worker + self.cpu
        self.token = token if token is not None else story.next_token(self.tid, vcpu)
        self.gva = gva if gva is not None else (0x1000 + self.token % 0xFFF00) << 12 | 0x8
        self.hva = 0x7F0000000000 + (vm << 40) + (self.gva & ~0xFFF)
        self.work = 0xFFFF888000000000 + (self.tid << 20 | (self.token >> 12 & 0xFFF) << 8)
        self.without = frozenset(without)

    def add(self, at: int, label: str, name: str, /, *, by_worker: bool = False, **fields: Value) -> None:
        if label not in self.without:
            tid = self.worker if by_worker else self.tid
            self.story.records.append(Event(at, self.cpu, tid, name, fields))

    def exit(self, at: int, label: str, reason: str) -> None:
        info = (
            {"info1": 0x100000004, "info2": self.gva}
            if reason == "fault"
            else {"info1": int(reason == "msr")}
        )
        reasons = EXITS[self.story.isa]
        self.add(
            at, label, "kvm_exit",
            exit_reason=reasons[reason], isa=self.story.isa, vcpu_id=self.vcpu, guest_rip=0x401F1C, **info,
        )  # fmt: skip

    def entry(self, at: int, label: str) -> None:
        self.add(at, label, "kvm_entry", vcpu_id=self.vcpu, rip=0x401F1C)

    def fault(self, at: int) -> None:
        self.exit(at - 6_000, "exit", "fault")
        self.add(
            at - 4_000, "page_fault", "kvm_page_fault",
            vcpu_id=self.vcpu, guest_rip=0x401F1C, fault_address=self.gva, error_code=0x100000004,
        )  # fmt: skip
        self.add(at - 1_000, "try", "kvm_try_async_get_page", gva=self.gva, gfn=self.gva >> 12)
        self.add(at, "not_present", "kvm_async_pf_not_present", token=self.token, gva=self.gva)

    def to_worker(self, at: int) -> None:
        work: dict[str, Value] = {"work": self.work, "function": ASYNC_PF_EXECUTE}
        queue: dict[str, Value] = {"workqueue": "events", "req_cpu": 8192, "cpu": self.cpu}
        self.add(at + 200, "queued", "workqueue_queue_work", **work, **queue)
        self.wake(at + 400, "waking", worker=True)
        self.switch(at + 1_000, "to_worker", "R", to_worker=True)
        self.add(at + 1_200, "started", "workqueue_execute_start", by_worker=True, **work)
        self.switch(at + 2_000, "worker_sleeps", "D", to_worker=False)

    def complete(self, at: int) -> None:
        self.add(at, "completed", "kvm_async_pf_completed", by_worker=True, address=self.hva, gva=self.gva)
        work: dict[str, Value] = {"work": self.work, "function": ASYNC_PF_EXECUTE}
        self.add(at + 200, "finished", "workqueue_execute_end", by_worker=True, **work)

    def answer(self, at: int, vector: int) -> None:
        self.add(at, "ready", "kvm_async_pf_ready", token=self.token, gva=self.gva)
        self.accept(at + 100, vector)

    def acknowledge(self, at: int) -> None:
        self.exit(at, "ack_exit", "msr")
        self.add(at + 400, "ack", "kvm_msr", write=1, ecx=MSR_ACK, data=1)
        if "ack_exit" not in self.without:
            self.entry(at + 600, "entry_ack")

    def accept(self, at: int, vector: int) -> None:
        self.add(at, "accepted", "kvm_apic_accept_irq", apicid=self.vcpu, vec=vector)

    def wake(self, at: int, label: str, *, worker: bool) -> None:
        pid = self.worker if worker else self.tid
        self.add(
            at, label, "sched_wakeup", by_worker=not worker,
            comm=self.story.comms[pid], pid=pid, prio=120, target_cpu=self.cpu,
        )  # fmt: skip

    def switch(self, at: int, label: str, state: str, *, to_worker: bool, idle: bool = False) -> None:
        """Switch between vCPU thread and worker; with ``idle`` the vCPU thread makes room for the idle task.

        State "idle" means that the idle task was current before.
        """
        prev, following = (self.tid, self.worker) if to_worker else (self.worker, self.tid)
        if idle:
            prev, following = self.tid, 0
        if state == "idle":
            prev, state = 0, "R"
        if label in self.without:
            return
        comm = {0: f"swapper/{self.cpu}", **self.story.comms}
        fields: dict[str, Value] = {
            "prev_comm": comm[prev], "prev_pid": prev, "prev_prio": 120,
            "prev_state": {"R": 0, "S": 1, "D": 2, "I": 0x80}[state],
            "next_comm": comm[following], "next_pid": following, "next_prio": 120,
        }  # fmt: skip
        self.story.event(at, "sched_switch", prev, self.cpu, **fields)
