"""Batch prediction: one model in the object store, actors that load it once, and a pool of them."""

import numpy as np
import ray
from ray.util import ActorPool

CLASSES, FEATURES, BATCHES, ROWS = 5, 64, 12, 100


def make_model():
    random = np.random.default_rng(0)
    return {"weights": random.normal(size=(FEATURES, CLASSES)), "bias": random.normal(size=CLASSES)}


def make_batch(number):
    return np.random.default_rng(100 + number).normal(size=(ROWS, FEATURES))


def predict(model, batch):
    return (batch @ model["weights"] + model["bias"]).argmax(axis=1)


@ray.remote
class Predictor:
    def __init__(self, model):
        self.model = model
        self.read_only = not model["weights"].flags.writeable
        self.batches = 0

    def predict(self, batch):
        self.batches += 1
        return predict(self.model, batch)

    def stats(self):
        return self.batches, self.read_only


@ray.remote
def predict_once(model, batch):
    return predict(model, batch)


def main():
    ray.init(num_cpus=4)
    model = make_model()
    model["padding"] = np.zeros(200_000)  # large enough for shared memory
    model_ref = ray.put(model)
    batches = [ray.put(make_batch(number)) for number in range(BATCHES)]
    expected = [predict(model, make_batch(number)) for number in range(BATCHES)]

    by_tasks = ray.get([predict_once.remote(model_ref, batch) for batch in batches])
    print("tasks agree:", all((a == b).all() for a, b in zip(by_tasks, expected)))

    predictors = [Predictor.remote(model_ref) for _ in range(3)]
    pool = ActorPool(predictors)
    by_actors = list(pool.map(lambda predictor, batch: predictor.predict.remote(batch), batches))
    print("actors agree:", all((a == b).all() for a, b in zip(by_actors, expected)))
    counts, read_only = zip(*ray.get([predictor.stats.remote() for predictor in predictors]))
    print("batches:", sum(counts), "model is read only:", set(read_only))
    print("histogram:", np.bincount(np.concatenate(by_actors), minlength=CLASSES))


if __name__ == "__main__":
    main()
