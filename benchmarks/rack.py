"""On paper: what many GPUs, their cores and their storage make of one another.

One output megapixel costs a GPU the time of the net, a core the time to decode its input and to
encode the result, and storage the bytes of both. The three work side by side, so the slowest of
them sets the pace.
"""

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Codec", "Rack", "commands", "net_rate", "table"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Codec:
    """What a format costs one core, measured."""

    decode: float
    """Input megapixels a second."""

    encode: float
    """Output megapixels a second."""

    input_bytes: float
    """Bytes of one megapixel of input."""

    output_bytes: float
    """Bytes of one megapixel of output."""

    def seconds(self, scale: float) -> float:
        """Seconds of one core for one output megapixel at so many output pixels a side."""
        return 1 / (self.decode * scale**2) + 1 / self.encode

    def bytes(self, scale: float) -> float:
        """Bytes read and written for one output megapixel."""
        return self.input_bytes / scale**2 + self.output_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Rack:
    """Machines for one folder of pictures."""

    gpus: int

    cores: int
    """For each GPU."""

    net: float
    """Output megapixels a second of one GPU."""

    storage: float
    """Bytes a second, read and written, of all together."""

    def limits(self, codec: Codec, scale: float) -> dict[str, float]:
        """Output megapixels a second that each part of the rack could do alone."""
        return {
            "GPUs": self.gpus * self.net,
            "cores": self.gpus * self.cores / codec.seconds(scale),
            "storage": self.storage / codec.bytes(scale),
        }

    def pace(self, codec: Codec, scale: float) -> tuple[float, str]:
        """Output megapixels a second of the whole, and the part that sets it."""
        limits = self.limits(codec, scale)
        slowest = min(limits, key=lambda part: limits[part])
        return limits[slowest], slowest

    def enough(self, codec: Codec, scale: float) -> float:
        """Cores for each GPU from which on they no longer hold it back."""
        return self.net * codec.seconds(scale)


def net_rate(multiply_adds: float, tera: float, share: float) -> float:
    """Output megapixels a second of a GPU that nobody has measured.

    Args:
        multiply_adds: For one output megapixel, the context of the blocks included.
        tera: 1e12 floating-point operations a second that the GPU's data sheet promises.
        share: Of these, that the net is assumed to reach.
    """
    return tera * 1e12 * share / (2 * multiply_adds)


def table(
    codecs: dict[str, Codec],
    *,
    net: float,
    scale: float,
    storage: float,
    gpus: Iterable[int] = (1, 8, 64),
    cores: Iterable[int] = (4, 16, 64),
) -> list[dict[str, object]]:
    """Work out every combination.

    Returns:
        One row for each format and number of cores: ``format``, ``cores`` (for each GPU),
        ``enough`` and ``racks``: ``gpus``, ``rate`` (output megapixels a second), ``limit``.
    """
    rows: list[dict[str, object]] = []
    counts = list(gpus)
    for name, codec in codecs.items():
        for each in cores:
            racks = [Rack(gpus=count, cores=each, net=net, storage=storage) for count in counts]
            paces = [rack.pace(codec, scale) for rack in racks]
            found = [
                {"gpus": count, "rate": rate, "limit": limit}
                for count, (rate, limit) in zip(counts, paces, strict=True)
            ]
            enough = racks[0].enough(codec, scale)
            rows.append({"format": name, "cores": each, "enough": enough, "racks": found})
    return rows


def commands(nodes: int = 8, gpus: int = 8, cores: int = 16) -> str:
    """Give what starts it: one machine by torchrun, many by Slurm."""
    return f"""\
# one machine, {gpus} GPUs
torchrun --standalone --nproc-per-node {gpus} -m srcli upscale photos -r -o large --skip-existing

# {nodes} machines of {gpus} GPUs under Slurm: sbatch this file
#!/bin/bash
#SBATCH --nodes={nodes} --ntasks-per-node={gpus} --gpus-per-node={gpus} --cpus-per-task={cores}
export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1) MASTER_PORT=29500
srun bash -c 'RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS \\
  srcli upscale photos -r -o large --skip-existing'
"""
