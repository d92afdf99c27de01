"""LeNet5 and ResNet50 as MindSpore cells, as its model zoo writes them."""

from mindspore import Tensor, nn


class LeNet5(nn.Cell):
    """LeCun et al. 1998, with ReLU and maximum pools: (N, 1, 32, 32) to (N, 10) logits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, pad_mode="valid", has_bias=True)
        self.conv2 = nn.Conv2d(6, 16, 5, pad_mode="valid", has_bias=True)
        self.pool = nn.MaxPool2d(kernel_size=2, stride=2)
        self.flatten = nn.Flatten()
        self.fc1 = nn.Dense(16 * 5 * 5, 120)
        self.fc2 = nn.Dense(120, 84)
        self.fc3 = nn.Dense(84, 10)
        self.relu = nn.ReLU()

    def construct(self, x: Tensor) -> Tensor:
        """What a call of the cell computes."""
        x = self.pool(self.relu(self.conv1(x)))
        x = self.pool(self.relu(self.conv2(x)))
        x = self.relu(self.fc1(self.flatten(x)))
        return self.fc3(self.relu(self.fc2(x)))


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride=stride, pad_mode="pad", padding=kernel // 2)


def _norm(channels: int) -> nn.BatchNorm2d:
    # A tenth of the old statistics stays: one batch shows what the next ones are like.
    return nn.BatchNorm2d(channels, momentum=0.1)


class Bottleneck(nn.Cell):
    """He et al. 2015, figure 5, right; the stride is that of the 3x3 convolution (v1.5)."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.body = nn.SequentialCell(
            _conv(inputs, width, 1),
            _norm(width),
            nn.ReLU(),
            _conv(width, width, 3, stride),
            _norm(width),
            nn.ReLU(),
            _conv(width, outputs, 1),
            _norm(outputs),
        )
        self.projects = stride != 1 or inputs != outputs
        if self.projects:
            self.shortcut = nn.SequentialCell(_conv(inputs, outputs, 1, stride), _norm(outputs))
        self.relu = nn.ReLU()

    def construct(self, x: Tensor) -> Tensor:
        """What a call of the cell computes."""
        kept = self.shortcut(x) if self.projects else x
        return self.relu(self.body(x) + kept)


class ResNet50(nn.Cell):
    """Stages of 3, 4, 6 and 3 bottlenecks: (N, 3, 224, 224) to (N, 1000) logits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.SequentialCell(
            _conv(3, 64, 7, 2),
            _norm(64),
            nn.ReLU(),
            # Padded on all sides it would be an operator that MindSpore does not export.
            nn.MaxPool2d(kernel_size=3, stride=2, pad_mode="same"),
        )
        blocks = []
        inputs = 64
        for width, count, stride in [(64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)]:
            for index in range(count):
                blocks.append(Bottleneck(inputs, width, stride if index == 0 else 1))
                inputs = 4 * width
        self.stages = nn.SequentialCell(*blocks)
        self.pool = nn.AvgPool2d(7)
        self.flatten = nn.Flatten()
        self.head = nn.Dense(inputs, 1000)

    def construct(self, x: Tensor) -> Tensor:
        """What a call of the cell computes."""
        return self.head(self.flatten(self.pool(self.stages(self.stem(x)))))
