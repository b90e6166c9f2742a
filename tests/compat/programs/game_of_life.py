"""The game of life on stripes: each actor has some rows, and asks its neighbours for their edges."""

import numpy as np
import ray

SIZE, STRIPES, STEPS = 24, 4, 20
GLIDER = [(1, 2), (2, 3), (3, 1), (3, 2), (3, 3)]
BLINKER = [(15, 15), (15, 16), (15, 17)]


def step(rows):
    """One generation of the inner rows."""
    around = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1) if (down, right) != (0, 0)]
    neighbours = sum(np.roll(rows, move, (0, 1)) for move in around)
    return ((neighbours == 3) | ((rows == 1) & (neighbours == 2)))[1:-1].astype(np.int8)


@ray.remote(max_concurrency=3)
class Stripe:
    def __init__(self, rows):
        self.history = [rows]

    def meet(self, above, below):
        self.above, self.below = above, below

    def edge(self, generation, which):
        return self.history[generation][which]

    def advance(self):
        generation = len(self.history) - 1
        top, bottom = ray.get([self.above.edge.remote(generation, -1), self.below.edge.remote(generation, 0)])
        self.history.append(step(np.vstack([top, self.history[-1], bottom])))
        return int(self.history[-1].sum())

    def rows(self):
        return self.history[-1]


def main():
    board = np.zeros((SIZE, SIZE), dtype=np.int8)
    for row, column in GLIDER + BLINKER:
        board[row, column] = 1
    expected = board
    for _ in range(STEPS):
        expected = step(np.vstack([expected[-1], expected, expected[0]]))

    stripes = [Stripe.remote(part) for part in np.split(board, STRIPES)]
    ray.get([s.meet.remote(stripes[at - 1], stripes[(at + 1) % STRIPES]) for at, s in enumerate(stripes)])
    alive = [sum(ray.get([stripe.advance.remote() for stripe in stripes])) for _ in range(STEPS)]
    final = np.vstack(ray.get([stripe.rows.remote() for stripe in stripes]))
    print("alive", alive)
    for row in final:
        print("".join(".#"[cell] for cell in row))
    print("as computed alone:", bool((final == expected).all()))


if __name__ == "__main__":
    ray.init(num_cpus=4)
    main()
