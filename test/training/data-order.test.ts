import test from 'ava'
import { DataOrder } from '../../lib/training/data-order.ts'

test('every epoch has each item once, in an order of its own', (t) => {
  const order = new DataOrder(50, 7)
  const first = order.take(50)
  const second = order.take(50)
  const all = Array.from({ length: 50 }, (_, index) => index)
  t.deepEqual(
    first.toSorted((a, b) => a - b),
    all,
  )
  t.deepEqual(
    second.toSorted((a, b) => a - b),
    all,
  )
  t.notDeepEqual(first, second)
  t.notDeepEqual(first, all)
})

test('a walk that goes on from a cursor is the walk that never stopped', (t) => {
  for (const stop of [0, 1, 4, 5, 6, 13]) {
    const whole = new DataOrder(5, 1).take(20)
    const before = new DataOrder(5, 1)
    before.take(stop)
    const after = new DataOrder(5, 1, before.cursor)
    t.deepEqual(after.take(20 - stop), whole.slice(stop))
  }
})

test('another seed is another order', (t) => {
  t.notDeepEqual(new DataOrder(30, 1).take(30), new DataOrder(30, 2).take(30))
})
