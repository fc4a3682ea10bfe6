import test from 'ava'
import { Random } from '../lib/random.ts'

test('the same seed gives the same numbers, another seed others', (t) => {
  const draw = (seed: number) =>
    Array.from({ length: 8 }, () => 0).map(
      (
        (r) => () =>
          r.uint32()
      )(new Random(seed)),
    )
  t.deepEqual(draw(7), draw(7))
  t.notDeepEqual(draw(7), draw(8))
  t.notDeepEqual(draw(1), draw(1 + 2 ** 32))
})

test('a restored generator continues exactly', (t) => {
  const first = new Random(3)
  for (let i = 0; i < 100; i++) first.next()
  const second = Random.restore(first.state)
  t.deepEqual(
    Array.from({ length: 20 }, () => first.next()),
    Array.from({ length: 20 }, () => second.next()),
  )
})

test('integers are uniform (chi-square, 15 degrees of freedom, p > 0.001)', (t) => {
  const random = new Random(11)
  const counts = new Array<number>(16).fill(0)
  for (let i = 0; i < 160_000; i++) counts[random.integer(16)]!++
  const chiSquare = counts.reduce((sum, count) => sum + (count - 10_000) ** 2 / 10_000, 0)
  t.true(chiSquare < 37.7, `chi-square ${chiSquare}`)
})

test('shuffle returns a permutation and leaves its input alone', (t) => {
  const items = Object.freeze(Array.from({ length: 50 }, (_, i) => i))
  const shuffled = new Random(5).shuffle(items)
  t.notDeepEqual(shuffled, items.slice())
  t.deepEqual(
    shuffled.slice().sort((a, b) => a - b),
    items.slice(),
  )
})
