"""Data sets as one writes them by hand, with OpenCV: a clip's frames and the flow between them."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from peers.decoding import all_frames
from peers.optical_flow import Peer
from torch import Tensor
from torch.utils.data import Dataset


class OpenCVClips(Dataset[dict[str, Tensor]]):
    """The first frame of the middle clip of each video, and the flow of the clip, cropped to a square in the middle."""

    def __init__(self, paths: Sequence[Path], length: int, side: int, peer: Peer) -> None:
        self.paths, self.length, self.side, self.peer = list(paths), length, side, peer

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        cv2.setNumThreads(1)  # as many workers as cores
        frames = self._frames(self.paths[index])
        grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
        flow = np.stack([self.peer.solve(*pair) for pair in zip(grey[:-1], grey[1:], strict=True)])
        top, left = (flow.shape[-2] - self.side) // 2, (flow.shape[-1] - self.side) // 2
        rows, columns = slice(top, top + self.side), slice(left, left + self.side)
        first = np.ascontiguousarray(frames[0][rows, columns].transpose(2, 0, 1))
        return {"frames": torch.from_numpy(first), "flow": torch.from_numpy(flow[..., rows, columns])}

    def _frames(self, path: Path) -> list[np.ndarray]:
        frames = all_frames(str(path))
        start = max(len(frames) - self.length, 0) // 2
        chosen = [frames[(start + i) % len(frames)] for i in range(self.length)]
        return [cv2.cvtColor(frame, cv2.COLOR_BGR2RGB) for frame in chosen]
