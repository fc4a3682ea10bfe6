import test from 'ava'
import { inTurns } from '../lib/in-turns.ts'

function busy(milliseconds: number): void {
  const end = performance.now() + milliseconds
  while (performance.now() < end);
}

test('results come in the order of the items', async (t) => {
  const items = Array.from({ length: 30 }, (_, index) => index)
  const results = await inTurns(items, (item, index) => {
    busy(1)
    return item * 10 + index
  })
  t.deepEqual(
    results,
    items.map((item) => item * 11),
  )
})

test('timers run while a long list is worked on', async (t) => {
  let ticks = 0
  const timer = setInterval(() => {
    ticks += 1
  }, 1)
  await inTurns(Array.from({ length: 100 }), () => busy(1))
  clearInterval(timer)
  t.true(ticks > 3)
})

test('an abort stops between two turns', async (t) => {
  const controller = new AbortController()
  const reason = new Error('enough')
  let done = 0
  const work = inTurns(
    Array.from({ length: 1000 }),
    () => {
      busy(1)
      done += 1
    },
    controller.signal,
  )
  setTimeout(() => controller.abort(reason), 5)
  t.is(await t.throwsAsync(work), reason)
  t.true(done < 1000)
})
