"""The failing jobs of the corpus, each a few lines of Python: what to run and what it needs.

All of them train for pretend first: the two lines that verl prints, so that the logs look and count like those of a job.
"""

from __future__ import annotations

import resource
from collections.abc import Mapping
from dataclasses import dataclass, field

STARTED = 'print("Total training steps: 2")\nprint("step:1 - actor/grad_norm:0.054 - timing_s/step:10.5", flush=True)\n'


@dataclass(frozen=True)
class Job:
    code: str = ""
    """`job.py` in an empty folder."""
    command: tuple[str, ...] = ("{python}", "job.py")
    env: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[int, int] = field(default_factory=dict)
    """resource.RLIMIT_* -> most."""
    tmpfs_kib: int | None = None
    """Size of a disk of its own at `disk/`."""
    cgroup_bytes: int | None = None
    more: Mapping[str, object] = field(default_factory=dict)
    """Fields of `attempt.json`, for jobs that the wrapper runs."""
    lines: int = 150
    """So many of the end are kept."""

    @property
    def needs_root(self) -> bool:
        return self.tmpfs_kib is not None or self.cgroup_bytes is not None


def _started(code: str, **more: object) -> Job:
    return Job(STARTED + code, **more)  # type: ignore[arg-type]


_TORCHRUN = ("{python}", "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=29517", "job.py")
_VERL = ("{python}", "-m", "verl.trainer.main_ppo")
_RAY = """
import os, ray
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=True)
"""
_GLOO = """
import datetime, os, sys, time, torch, torch.distributed as dist
dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=5))
rank = dist.get_rank()
"""
_ACTOR = (
    _RAY
    + """
@ray.remote(max_restarts=0)
class WorkerDict:
    def update_actor(self, batch):
        {body}

worker = WorkerDict.remote()
ray.get(worker.update_actor.remote({{"x": 1}}))
"""
)

MEMORY = {
    "ran-torch-cpu-allocation": _started("import torch\ntorch.empty(1 << 52, dtype=torch.uint8)"),
    "ran-numpy-allocation": _started("import numpy as np\nnp.zeros(1 << 55)"),
    "ran-rlimit-as": _started(
        "x = []\nwhile True:\n    x.append(bytearray(1 << 26))", limits={resource.RLIMIT_AS: 1 << 30}
    ),
    "ran-cgroup-oom-kill": _started("x = []\nwhile True:\n    x.append(b'x' * (1 << 24))", cgroup_bytes=256 << 20),
    "ran-mmap-cannot-allocate": _started("import mmap\nmmap.mmap(-1, 1 << 46)"),
    "ran-torch-in-ray-actor-allocation": _started(
        _ACTOR.format(body="import torch; return torch.empty(1 << 52, dtype=torch.uint8)")
    ),
    "ran-ray-memory-monitor": _started(
        _ACTOR.format(body="import time; x = bytearray(1 << 28); time.sleep(60); return len(x)"),
        env={"RAY_memory_usage_threshold": "0.01", "RAY_memory_monitor_refresh_ms": "100"},
    ),
}

DISK = {
    "ran-disk-full": _started(
        "with open('disk/checkpoint.pt', 'wb') as file:\n    file.write(b'x' * (1 << 20))", tmpfs_kib=256
    ),
    "ran-disk-full-torch-save": _started(
        "import torch\ntorch.save({'w': torch.zeros(1 << 20)}, 'disk/global_step_1.pt')", tmpfs_kib=256
    ),
    "ran-file-size-limit": _started(
        "with open('checkpoint.pt', 'wb') as file:\n    file.write(b'x' * (1 << 20))",
        limits={resource.RLIMIT_FSIZE: 1 << 16},
    ),
    "ran-shm-bus-error": _started(
        "import mmap, os\nfile = open('disk/torch_shm', 'wb+')\nos.ftruncate(file.fileno(), 1 << 24)\n"
        "import faulthandler; faulthandler.enable()\n"
        "view = mmap.mmap(file.fileno(), 1 << 24)\nview[:] = b'x' * (1 << 24)",
        tmpfs_kib=256,
    ),
    "ran-dataloader-bus-error": _started(
        "import mmap, os, torch\n"
        "class Data(torch.utils.data.Dataset):\n"
        "    def __len__(self): return 8\n"
        "    def __getitem__(self, index):\n"
        "        file = open('disk/torch_shm', 'wb+')\n"
        "        os.ftruncate(file.fileno(), 1 << 24)\n"
        "        view = mmap.mmap(file.fileno(), 1 << 24)\n"
        "        view[:] = b'x' * (1 << 24)\n"
        "        return index\n"
        "for batch in torch.utils.data.DataLoader(Data(), num_workers=1): print(batch)",
        tmpfs_kib=256,
    ),
    "ran-read-only-folder": _started(
        "import os\nos.system('mount -o remount,ro disk')\nopen('disk/step_000002.npz', 'wb')", tmpfs_kib=256
    ),
}

PYTHON = {
    "ran-key-error": _started("batch = {'input_ids': 1}\ntemperature = batch['temperature']"),
    "ran-import-error": _started("import flash_attn_of_another_build"),
    "ran-syntax-error": Job("import reward\n", command=("sh", "-c", "echo 'def f(:' > reward.py; {python} job.py")),
    "ran-assertion": _started(
        "world, batch = 8, 12\nassert batch % world == 0, f'train_batch_size {batch} is not divisible by {world}'"
    ),
    "ran-no-cuda-in-this-build": _started("import torch\ntorch.zeros(2, device='cuda')"),
    "ran-shape-mismatch": _started("import torch\ntorch.zeros(3, 4) @ torch.zeros(5, 6)"),
    "ran-nan-gradient": _started(
        "import torch\nx = torch.zeros(1, requires_grad=True)\nwith torch.autograd.detect_anomaly():\n"
        "    (torch.sqrt(x) * 0).sum().backward()"
    ),
    "ran-too-many-open-files": _started(
        "files = [open('/dev/null') for _ in range(100)]", limits={resource.RLIMIT_NOFILE: 40}
    ),
    "ran-segfault-faulthandler": _started(
        "import ctypes\nctypes.string_at(0)", command=("{python}", "-X", "faulthandler", "job.py")
    ),
    "ran-segfault-in-bash": _started(
        "import ctypes\nctypes.string_at(0)", command=("bash", "-c", "{python} job.py; echo done")
    ),
    "ran-abort-bad-alloc": _started(
        "import os, sys\nsys.stderr.write(\"terminate called after throwing an instance of 'std::bad_alloc'\\n\")\n"
        "sys.stderr.write('  what():  std::bad_alloc\\n')\nos.abort()",
    ),
    "ran-killed-in-bash": _started(
        "import os\nos.kill(os.getpid(), 9)", command=("bash", "-c", "{python} job.py; echo done")
    ),
    "ran-exception-ignored-then-key-error": _started(
        "class Server:\n    def __del__(self):\n        raise RuntimeError('already closed')\n"
        "Server()\nraise KeyError('temperature')"
    ),
    "ran-optional-import-then-oom": _started(
        "import logging, torch\ntry:\n    import flash_attn\nexcept ImportError:\n"
        "    logging.exception('falling back to sdpa')\n"
        "torch.empty(1 << 52, dtype=torch.uint8)"
    ),
    "ran-keyboard-interrupt": _started("import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(5)"),
    "ran-system-exit-words": _started("raise SystemExit('no checkpoint to resume from')"),
    "ran-multiprocessing-child": _started(
        "import torch.multiprocessing as mp\ndef work(rank):\n    if rank: raise ValueError('rank 1 has no data')\n"
        "if __name__ == '__main__': mp.spawn(work, nprocs=2)"
    ),
}

RAY = {
    "ran-ray-task-error": _started(
        _RAY + "@ray.remote\ndef compute_reward(text):\n    return {'a': 1}[text]\nray.get(compute_reward.remote('b'))"
    ),
    "ran-ray-actor-error": _started(
        _ACTOR.format(body="raise ValueError('temperature must be set before any forward')")
    ),
    "ran-ray-actor-killed": _started(_ACTOR.format(body="os.kill(os.getpid(), 9)")),
    "ran-ray-actor-exits": _started(_ACTOR.format(body="os._exit(3)")),
    "ran-ray-actor-segfault": _started(_ACTOR.format(body="import ctypes; ctypes.string_at(0)")),
    "ran-ray-task-killed": _started(
        _RAY + "@ray.remote(max_retries=0)\ndef rollout():\n    os.kill(os.getpid(), 9)\nray.get(rollout.remote())"
    ),
    "ran-ray-actor-init-error": _started(
        _RAY + "@ray.remote\nclass Rollout:\n    def __init__(self): raise RuntimeError('engine did not start')\n"
        "    def generate(self): return 1\nray.get(Rollout.remote().generate.remote())"
    ),
    "ran-ray-get-timeout": _started(
        _RAY + "import time\n@ray.remote\ndef wait(): time.sleep(30)\nray.get(wait.remote(), timeout=1)"
    ),
}

DISTRIBUTED = {
    "ran-torchrun-python-error": _started(
        _GLOO + "if rank == 1: raise ValueError('3 is not divisible by 2')\ndist.barrier()", command=_TORCHRUN
    ),
    "ran-torchrun-sigkill": _started(
        _GLOO + "dist.barrier()\nif rank == 1: os.kill(os.getpid(), 9)\ndist.barrier()", command=_TORCHRUN
    ),
    "ran-gloo-peer-closed": _started(
        _GLOO + "dist.barrier()\nif rank == 1: os._exit(0)\ntime.sleep(1)\ndist.barrier()", command=_TORCHRUN
    ),
    "ran-gloo-collective-timeout": _started(
        _GLOO + "dist.barrier()\nif rank == 0: dist.all_reduce(torch.ones(1))\ntime.sleep(20)", command=_TORCHRUN
    ),
    "ran-rendezvous-timeout": _started(
        "import datetime, torch.distributed as dist\n"
        "dist.TCPStore('127.0.0.1', 29519, 2, False, timeout=datetime.timedelta(seconds=2))"
    ),
    "ran-store-waits-for-peers": _started(
        "import datetime, torch.distributed as dist\n"
        "dist.TCPStore('127.0.0.1', 29521, 2, True, timeout=datetime.timedelta(seconds=2))"
    ),
    "ran-port-in-use": _started(
        "import socket, torch.distributed as dist\ns = socket.socket()\ns.bind(('0.0.0.0', 29523)); s.listen()\n"
        "dist.TCPStore('127.0.0.1', 29523, 1, True)"
    ),
    "ran-nccl-not-built-in": _started(
        "import os, torch.distributed as dist\nos.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT='29525', RANK='0', "
        "WORLD_SIZE='1')\ndist.init_process_group('nccl')"
    ),
    "ran-fsdp-without-a-group": _started(
        "import torch\nfrom torch.distributed.fsdp import FullyShardedDataParallel\n"
        "FullyShardedDataParallel(torch.nn.Linear(2, 2))"
    ),
}

CONFIG = {
    "ran-verl-unknown-key": Job(command=(*_VERL, "trainer.foo=1")),
    "ran-verl-wrong-type": Job(command=(*_VERL, "actor_rollout_ref.actor.ppo_mini_batch_size=[")),
    "ran-verl-unknown-group-option": Job(command=(*_VERL, "actor@actor_rollout_ref.actor=nope")),
    "ran-verl-unknown-config": Job(command=(*_VERL, "--config-name=nope")),
    "ran-verl-unknown-flag": Job(command=(*_VERL, "--trainer", "x")),
    "ran-omegaconf-missing": _started(
        "from omegaconf import OmegaConf\nconfig = OmegaConf.create({'model': {'path': '???'}})\nprint(config.model.path)"
    ),
    "ran-omegaconf-struct": _started(
        "from omegaconf import OmegaConf\nconfig = OmegaConf.create({'a': 1})\n"
        "OmegaConf.set_struct(config, True)\nprint(config.b)"
    ),
    "ran-omegaconf-interpolation": _started(
        "from omegaconf import OmegaConf\nconfig = OmegaConf.create({'a': '${nope.b}'})\nprint(config.a)"
    ),
    "ran-hydra-instantiate": _started(
        "from hydra.utils import instantiate\ninstantiate({'_target_': 'verl.workers.NoSuchWorker'})"
    ),
    "ran-hub-offline": _started(
        "from transformers import AutoModelForCausalLM\nAutoModelForCausalLM.from_pretrained('some-org/some-model')"
    ),
    "ran-model-path-missing": _started(
        "from transformers import AutoTokenizer\nAutoTokenizer.from_pretrained('/models/Qwen2.5-1.5B')"
    ),
    "ran-chat-template-missing": _started(
        "from tokenizers import Tokenizer, models\nfrom transformers import PreTrainedTokenizerFast\n"
        "tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({'a': 0}, unk_token='a')))\n"
        "tokenizer.apply_chat_template([{'role': 'user', 'content': 'a'}])"
    ),
    "ran-weights-truncated": _started(
        "from safetensors import safe_open\nopen('model.safetensors', 'wb').write(b'\\x10\\x27' + b'\\0' * 6 + b'{')\n"
        "safe_open('model.safetensors', framework='pt')"
    ),
    "ran-dataset-missing": _started(
        "import datasets\ndatasets.load_dataset('parquet', data_files='/data/gsm8k/train.parquet')"
    ),
}

FINISHED = 'print("step:2 - actor/grad_norm:0.061 - timing_s/step:10.1", flush=True)\n'

SECOND = {
    "ran-recursion": _started("def f(x): return f(x)\nf(1)"),
    "ran-checkpoint-not-a-zip": _started("import torch\nopen('a.pt', 'wb').write(b'no')\ntorch.load('a.pt')"),
    "ran-connection-refused": _started("import urllib.request\nurllib.request.urlopen('http://127.0.0.1:9/api')"),
    "ran-command-failed": _started("import subprocess\nsubprocess.run(['sh', '-c', 'exit 3'], check=True)"),
    "ran-command-killed": _started("import subprocess\nsubprocess.run(['sh', '-c', 'kill -9 $$'], check=True)"),
    "ran-reward-not-json": _started("import json\njson.loads('<think> 4')"),
    "ran-async-exception-never-retrieved": _started(
        "import asyncio\nasync def fail(): raise ValueError('tool call failed')\n"
        "async def main():\n    asyncio.ensure_future(fail())\n    await asyncio.sleep(0.1)\nasyncio.run(main())\n"
        + FINISHED
    ),
    "ran-logging-error": _started("import logging\nlogging.basicConfig()\nlogging.warning('%d', 'x')\n" + FINISHED),
    "ran-thread-exception": _started(
        "import threading\ndef upload(): raise ConnectionError('no tracking server')\n"
        "thread = threading.Thread(target=upload)\nthread.start(); thread.join()\n" + FINISHED
    ),
    "ran-retried-after-traceback": _started(
        "import traceback\nfor attempt in range(2):\n    try:\n        if attempt == 0: raise TimeoutError('sandbox')\n"
        "    except TimeoutError: traceback.print_exc()\n" + FINISHED
    ),
    "ran-ray-task-retried": _started(
        _RAY
        + "import pathlib\n@ray.remote(max_retries=1)\ndef rollout():\n    mark = pathlib.Path('/tmp/provoked-once')\n"
        "    if not mark.exists():\n        mark.touch(); os.kill(os.getpid(), 9)\n    mark.unlink(); return 1\n"
        "ray.get(rollout.remote())\n" + FINISHED
    ),
    "ran-ray-error-in-an-actor-nobody-asks": _started(
        _RAY + "import time\n@ray.remote\nclass Logger:\n    def log(self): raise ValueError('no such run')\n"
        "logger = Logger.remote(); logger.log.remote(); time.sleep(1)\n" + FINISHED
    ),
    "ran-ray-actor-python-memory": _started(
        _ACTOR.format(
            body="import resource; resource.setrlimit(resource.RLIMIT_DATA, (1 << 28,) * 2); return bytearray(1 << 30)"
        )
    ),
    "ran-ray-not-enough-resources": _started(
        _RAY + "@ray.remote(num_gpus=8)\ndef train(): return 1\nray.get(train.remote(), timeout=8)"
    ),
    "ran-torchrun-segfault": _started(
        _GLOO + "dist.barrier()\nimport ctypes\nif rank == 1: ctypes.string_at(0)\ndist.barrier()", command=_TORCHRUN
    ),
    "ran-torchrun-allocation": _started(
        _GLOO + "dist.barrier()\nif rank == 1: torch.empty(1 << 52, dtype=torch.uint8)\ndist.barrier()",
        command=_TORCHRUN,
    ),
    "ran-spawn-child-killed": _started(
        "import os, torch.multiprocessing as mp\ndef work(rank):\n    if rank: os.kill(os.getpid(), 9)\n"
        "if __name__ == '__main__': mp.spawn(work, nprocs=2)"
    ),
    "ran-pickle": _started(
        "import multiprocessing\nmultiprocessing.get_context('spawn').Process(target=lambda: 1).start()"
    ),
    "ran-verl-config-assertion": Job(command=(*_VERL, "data.train_files=/data/none.parquet", "trainer.device=cpu")),
}
"""Thought of after the first had been judged."""

GPU = {
    "ran-cuda-oom": _started(
        "import torch\nx = [torch.empty(1 << 34, dtype=torch.uint8, device='cuda') for _ in range(99)]"
    ),
    "ran-cuda-oom-in-ray": _started(
        _ACTOR.replace("@ray.remote(max", "@ray.remote(num_gpus=1, max").format(
            body="import torch; return [torch.empty(1 << 34, dtype=torch.uint8, device='cuda') for _ in range(99)]"
        )
    ),
    "ran-cuda-device-assert": _started(
        "import torch\ntorch.zeros(2, device='cuda')[torch.tensor([5], device='cuda')].cpu()"
    ),
    "ran-pinned-host-oom": _started("import torch\ntorch.empty(1 << 44, dtype=torch.uint8, pin_memory=True)"),
}
"""Where a GPU is. Run by name."""

_FILES = """
import json, os, signal, sys, time
from pathlib import Path
import numpy as np
folder = Path(os.environ["ORCHESTRATOR_ATTEMPT_DIR"])
(folder / "influence").mkdir()
def step(number, scores=(0.5, -0.25, 1.0), npz=True):
    if npz: np.savez(folder / "influence" / f"step_{number:06d}.npz", scores=np.float32([scores]), mask=np.ones((1, 3), bool))
    data = {"influence_trace/rows_emitted": 1, "actor/grad_norm": 0.054, "timing_s/step": 10.5}
    print(" - ".join([f"step:{number}", *(f"{name}:{value}" for name, value in data.items())]))
    with open(folder / "metrics.jsonl", "a") as file: file.write(json.dumps({"step": number, "data": data}) + "\\n")
step(1)
"""

WRAPPED: Mapping[str, Job] = {
    "wrapped-completed": Job(_FILES + "step(2)"),
    "wrapped-exit-1-after-completion": Job(_FILES + "step(2)\nprint('ray shutdown failed')\nsys.exit(1)"),
    "wrapped-abort-after-completion": Job(_FILES + "step(2)\nos.abort()"),
    "wrapped-nan-scores": Job(_FILES + "step(2, (0.5, np.nan, np.inf))"),
    "wrapped-missing-npz": Job(_FILES + "step(2, npz=False)"),
    "wrapped-truncated-npz": Job(
        _FILES + "step(2)\npath = folder / 'influence' / 'step_000002.npz'\npath.write_bytes(path.read_bytes()[:150])"
    ),
    "wrapped-sigkill": Job(_FILES + "os.kill(os.getpid(), 9)"),
    "wrapped-terminated": Job(_FILES + "os.kill(os.getppid(), signal.SIGTERM)\ntime.sleep(20)"),
    "wrapped-time-limit": Job(_FILES + "time.sleep(60)", more={"time_limit_s": 3.0}),
    "wrapped-oom-kill": Job(_FILES + "x = []\nwhile True: x.append(b'x' * (1 << 24))", cgroup_bytes=256 << 20),
    "wrapped-not-started": Job(command=("no-such-python", "-m", "verl.trainer.main_ppo")),
    "wrapped-prepare-failed": Job(more={"prepare": [["sh", "-c", "echo 'no such model'; exit 3"]]}),
    "wrapped-one-step-then-exit-0": Job(_FILES + "print('dataloader is empty')"),
}
"""Run by the job wrapper: the whole attempt folder is kept."""

JOBS: Mapping[str, Job] = {**MEMORY, **DISK, **PYTHON, **RAY, **DISTRIBUTED, **CONFIG, **SECOND}
