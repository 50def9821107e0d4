"""The lab that this project grew out of, as a job: one process, DataLoader, the whole table through pandas.

Its code as it stands in the lab's notebook, except paths and output: ``spark-submit lab.py penguins.csv FOLDER``. What
is wrong in it stays wrong here (rows are copied before they are split); it is a peer for speed, not for results.
"""

# ruff: noqa: E402
# mypy: ignore-errors
import json
import sys
import time

begin = time.perf_counter()

import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.utils.data as td
from pyspark.sql import SparkSession
from pyspark.sql.functions import col, collect_set
from sklearn.model_selection import train_test_split

csv, folder = sys.argv[1:]
spark = SparkSession.builder.appName("lab").getOrCreate()
df = spark.read.format("csv").option("header", "true").load(csv).dropna()
islands = df.select(collect_set("Island").alias("Islands")).first()["Islands"]
island_indexes = [(islands[i], i) for i in range(0, len(islands))]
df_indexes = spark.createDataFrame(island_indexes).toDF("Island", "IslandIdx")
data = df.join(df_indexes, ["Island"], "left").select(
    col("IslandIdx"),
    col("CulmenLength").astype("float"),
    col("CulmenDepth").astype("float"),
    (col("FlipperLength").astype("float") / 10).alias("FlipperScaled"),
    (col("BodyMass").astype("float") / 100).alias("MassScaled"),
    col("Species").astype("int"),
)
for _ in range(1, 3):
    data = data.union(data)
names = ["IslandIdx", "CulmenLength", "CulmenDepth", "FlipperScaled", "MassScaled"]
x_train, x_test, y_train, y_test = train_test_split(
    data.toPandas()[names].values, data.toPandas()["Species"].values, test_size=0.30, random_state=0
)

torch.manual_seed(0)
train_ds = td.TensorDataset(torch.Tensor(x_train).float(), torch.Tensor(y_train).long())
train_loader = td.DataLoader(train_ds, batch_size=20, shuffle=False, num_workers=1)
test_ds = td.TensorDataset(torch.Tensor(x_test).float(), torch.Tensor(y_test).long())
test_loader = td.DataLoader(test_ds, batch_size=20, shuffle=False, num_workers=1)


class PenguinNet(nn.Module):
    """The lab's network."""

    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(len(names), 10)
        self.fc2 = nn.Linear(10, 10)
        self.fc3 = nn.Linear(10, 3)

    def forward(self, x):
        x = torch.relu(self.fc1(x))
        x = torch.relu(self.fc2(x))
        return F.log_softmax(self.fc3(x).float(), dim=1)


def train(model, loader, optimizer):
    """One epoch."""
    model.train()
    total = 0.0
    for rows, target in loader:
        optimizer.zero_grad()
        loss = loss_criteria(model(rows), target)
        total += loss.item()
        loss.backward()
        optimizer.step()
    return total / len(loader)


def test(model, loader):
    """Measure on the rows held out."""
    model.eval()
    total, correct = 0.0, 0
    with torch.no_grad():
        for rows, target in loader:
            out = model(rows)
            total += loss_criteria(out, target).item()
            correct += torch.sum(target == torch.max(out.data, 1)[1]).item()
    return total / len(loader), correct / len(loader.dataset)


model = PenguinNet()
loss_criteria = nn.CrossEntropyLoss()
optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
training = time.perf_counter()
accuracy = 0.0
for epoch in range(1, 101):
    train_loss = train(model, train_loader, optimizer)
    test_loss, accuracy = test(model, test_loader)
    print(f"Epoch: {epoch} {train_loss:.6f} {test_loss:.6f} {accuracy:.0%}", file=sys.stderr)
trained = time.perf_counter()
torch.save(model.state_dict(), f"{folder}/penguin_classifier.pt")
print(json.dumps({"train": trained - training, "total": time.perf_counter() - begin, "accuracy": accuracy}))
spark.stop()
