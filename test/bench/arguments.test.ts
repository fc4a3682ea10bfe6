import test from 'ava'
import { parseSettings } from '../../bench/arguments.ts'
import { newTokensOf, type Sizes, tokensOf, variantsOf } from '../../bench/cases.ts'

test('settings have defaults; --quick keeps no rows unless it is told where', (t) => {
  const settings = parseSettings([], 'results.csv')
  t.like(settings, { names: [], threads: 2, rounds: 3, peers: false, quick: false, output: 'results.csv' })
  t.like(parseSettings(['--quick'], 'results.csv'), { rounds: 1, output: undefined })
  t.is(parseSettings(['--quick', '--output', 'x.csv'], 'results.csv').output, 'x.csv')
  t.deepEqual(parseSettings(['--only', 'llama.cpp,TRL'], 'r').only, ['llama.cpp', 'TRL'])
})

test('an unknown case, flag or number is refused by name', (t) => {
  t.throws(() => parseSettings(['generat'], 'r'), {
    message: /Expected a case \(load, .*\) or one of its variants but received generat$/,
  })
  t.throws(() => parseSettings(['--fast'], 'r'), { message: /--fast/ })
  for (const text of ['0', '1.5', 'two', '']) {
    t.throws(() => parseSettings([`--threads=${text}`], 'r'), {
      message: `Expected a whole number of at least 1 for --threads but received '${text}'`,
    })
  }
})

test('a name stands for a case with all its variants, or for one of them', (t) => {
  const ids = (names: string[]) => variantsOf(names, { quick: false }).map(({ id }) => id)
  t.deepEqual(ids(['generate/ragged']), ['generate/ragged'])
  t.true(ids(['generate']).length > 1)
  t.true(ids(['generate']).every((id) => id.startsWith('generate/')))
  const all = ids([])
  t.is(new Set(all).size, all.length)
})

test('ragged lengths take turns and count as what they are', (t) => {
  const [variant] = variantsOf(['generate/ragged'], { quick: false })
  const sizes = variant!.sizes as Extract<Sizes, { kind: 'generate' }>
  t.deepEqual(newTokensOf(sizes).slice(0, 4), [16, 64, 256, 16])
  t.is(tokensOf(sizes), 11 * (16 + 64 + 256))
})
