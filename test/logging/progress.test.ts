import test from 'ava'
import { formatDuration, Progress, type ProgressStream } from '../../lib/logging/progress.ts'

function recorder(isTTY: boolean) {
  const written: string[] = []
  const stream: ProgressStream = { isTTY, columns: 80, write: (text) => written.push(text) }
  return { written, stream }
}

test('a pipe gets plain lines with the time left', (t) => {
  const { written, stream } = recorder(false)
  let time = 0
  const progress = new Progress({ total: 10, label: 'step', stream, now: () => time })
  time = 5000
  progress.update(1, 'reward 0.5')
  time = 10_000
  progress.update(2)
  progress.update(10)
  t.deepEqual(written, ['step 1/10 · reward 0.5 · 45 s left\n', 'step 2/10 · 40 s left\n', 'step 10/10\n'])
})

test('a terminal gets one line that is rewritten and never wraps', (t) => {
  const { written, stream } = recorder(true)
  const progress = new Progress({ total: 2, label: 'step', stream, now: () => 0 })
  progress.update(1, 'x'.repeat(200))
  t.true(written[0]!.startsWith('\r\u001b[2Kstep 1/2'))
  t.is(written[0]!.length - '\r\u001b[2K'.length, 79)
  progress.finish()
  t.true(written[1]!.endsWith('\n'))
})

test('units that were done before the start do not count for the time left', (t) => {
  const { stream } = recorder(false)
  let time = 0
  const progress = new Progress({ total: 100, done: 98, label: 'step', stream, now: () => time })
  t.is(progress.secondsLeft, null)
  time = 3000
  progress.update(99)
  t.is(progress.secondsLeft, 3)
})

test('in a pipe lines can be held back, the last one never is', (t) => {
  const { written, stream } = recorder(false)
  let time = 0
  const progress = new Progress({ total: 3, label: 'q', stream, now: () => time, interval: 1000 })
  for (const done of [1, 2, 3]) {
    time += 10
    progress.update(done)
  }
  t.is(written.length, 2)
  t.true(written[1]!.startsWith('q 3/3'))
})

test('durations read as people say them', (t) => {
  t.deepEqual([4.6, 75, 3600, 7500].map(formatDuration), ['5 s', '1 min 15 s', '1 h 0 min', '2 h 5 min'])
})
