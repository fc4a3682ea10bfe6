import test from 'ava'
import { Command, InvalidArgumentError } from 'commander'
import { painterFor } from '../../lib/cli/colors.ts'
import { addPolicyOptions, addSamplingOptions, integer, number } from '../../lib/cli/common.ts'

test('integer() takes whole numbers within its range and says what it expected otherwise', (t) => {
  const parse = integer({ min: 1, max: 8 })
  t.is(parse('8'), 8)
  for (const text of ['0', '9', '1.5', 'x', '', ' ', 'NaN', 'Infinity', '1e400']) {
    const error = t.throws(() => parse(text), { instanceOf: InvalidArgumentError }, text)
    t.is(error.message, `Expected a whole number from 1 to 8 but received '${text}'.`)
  }
})

test('number() keeps open and closed ends apart', (t) => {
  const parse = number({ above: 0, max: 1 })
  t.is(parse('1'), 1)
  t.is(parse('1e-9'), 1e-9)
  for (const text of ['0', '-1', '1.01', 'nan'])
    t.throws(() => parse(text), { message: /above 0 and of at most 1/ }, text)
  t.is(number()('-3.5'), -3.5)
})

test('policy and sampling flags arrive parsed under their camel-case names', (t) => {
  const command = addSamplingOptions(addPolicyOptions(new Command()), { temperature: 1 })
  command.parse(
    ['-p', 'a', '--dtype', 'f32', '--threads', '2', '--top-p', '0.5', '--stop', 'x', '--stop', 'y'],
    {
      from: 'user',
    },
  )
  t.deepEqual(command.opts(), {
    policy: 'a',
    dtype: 'f32',
    threads: 2,
    temperature: 1,
    topP: 0.5,
    stop: ['x', 'y'],
  })
})

test('a flag outside of its range is an error of usage that names the flag', (t) => {
  const command = addSamplingOptions(new Command().exitOverride().configureOutput({ writeErr: () => {} }))
  const error = t.throws(() => command.parse(['--temperature', '-1'], { from: 'user' }))
  t.regex(error.message, /--temperature <t>.*Expected a number of at least 0 but received '-1'/)
})

test('colours are for terminals only, and NO_COLOR turns them off', (t) => {
  t.is(painterFor({ isTTY: true }, {})('red', 'x'), '\u001b[31mx\u001b[39m')
  t.is(painterFor({ isTTY: true }, { NO_COLOR: '1' })('red', 'x'), 'x')
  t.is(painterFor({}, {})('red', 'x'), 'x')
  t.is(painterFor({}, { FORCE_COLOR: '1' })('bold', 'x'), '\u001b[1mx\u001b[22m')
})
