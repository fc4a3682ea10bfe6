import test from 'ava'
import { ApiError } from '../../lib/serve/api-error.ts'
import { Gate } from '../../lib/serve/gate.ts'

test('a gate counts what is inside, and who leaves twice leaves once', (t) => {
  const gate = new Gate(3)
  const first = gate.enter(2)
  const second = gate.enter(1)
  t.is(gate.inside, 3)
  first()
  first()
  t.is(gate.inside, 1)
  second()
  t.is(gate.inside, 0)
})

test('who does not fit is told when to come back, who never would is told so', (t) => {
  const gate = new Gate(2)
  gate.enter(2)
  const busy = t.throws(() => gate.enter(1), { instanceOf: ApiError })!
  t.is(busy.options.status, 429)
  t.is(busy.options.headers!['Retry-After'], '1')
  const never = t.throws(() => gate.enter(3), { instanceOf: ApiError })!
  t.is(never.options.status, 400)
  t.is(gate.inside, 2)
})
