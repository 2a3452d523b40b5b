"""Processes leave their process groups before they end."""

import weakref

import pytest
from detectron2.utils import comm
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from efpn_d2.engine import run_and_leave


@pytest.fixture
def process_group(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    comm.create_local_process_group(1)
    yield
    if dist.is_initialized():
        dist.destroy_process_group()


def work(groups, fails=False):
    """What a training leaves behind: Detectron2's cached groups and a model in a cycle."""
    groups.append(weakref.ref(dist.group.WORLD))
    groups.append(weakref.ref(comm._LOCAL_PROCESS_GROUP))
    groups.append(weakref.ref(comm._get_global_gloo_group()))
    model = DistributedDataParallel(nn.Linear(1, 1))
    model.itself = [model]
    if fails:
        raise ValueError("bad data")
    return "done"


def test_no_process_group_is_left(process_group):
    groups = []
    assert run_and_leave(work, groups) == "done"
    assert not dist.is_initialized()
    assert [group() for group in groups] == [None] * 3


def test_another_group_can_follow(process_group, tmp_path):
    run_and_leave(work, [])
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/other", rank=0, world_size=1)
    comm.create_local_process_group(1)
    assert comm._get_global_gloo_group() is dist.group.WORLD
    run_and_leave(comm.synchronize)


def test_an_error_is_raised_with_the_groups_open(process_group):
    with pytest.raises(ValueError, match="bad data"):
        run_and_leave(work, [], True)
    assert dist.is_initialized()


def test_without_a_process_group_it_only_runs():
    assert run_and_leave(max, 1, 2) == 2
