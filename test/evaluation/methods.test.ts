import test from 'ava'
import { createMethod } from '../../lib/evaluation/methods.ts'

const textOf = (name: string, question: string) =>
  createMethod(name)
    .prompt(question)
    .map(({ text }) => text)
    .join('')

test('each method asks in its own words and ends where its answer ends', (t) => {
  for (const name of ['self-search', 'direct', 'cot']) {
    const method = createMethod(name)
    t.true(textOf(name, 'Why?').includes('Question: Why?'))
    t.deepEqual(method.stop, ['</answer>'])
    t.is(method.extract('<think> x </think><answer> a </answer><answer> b </answer>'), 'b')
    t.is(method.extract('no answer'), '')
  }
  t.true(textOf('few-shot', 'Why?').endsWith('Question: Why?\nAnswer:'))
  t.is(createMethod('few-shot').extract(' Paris\nQuestion: more'), 'Paris')
})

test('the question is untrusted in every method', (t) => {
  for (const name of ['self-search', 'direct', 'cot', 'few-shot']) {
    const untrusted = createMethod(name)
      .prompt('Why?')
      .filter((segment) => segment.untrusted)
    t.deepEqual(
      untrusted.map(({ text }) => text),
      ['Why?'],
    )
  }
})

test('methods of a later version are refused by name, unknown ones too', (t) => {
  for (const name of ['self-search-multiturn', 'self-search-reflect', 'rag', 'search']) {
    t.throws(() => createMethod(name), { code: 'ERR_INVALID_CONFIG', message: /does not have/ })
  }
  t.throws(() => createMethod('magic'), { code: 'ERR_INVALID_CONFIG', message: /one of self-search, direct/ })
})

test('an option of another method is refused', (t) => {
  const shots = [{ question: 'a', answer: 'b' }]
  t.throws(() => createMethod('direct', { shots }), { code: 'ERR_INVALID_CONFIG' })
  const promptTemplate = { name: 'own', text: '{question}' }
  t.throws(() => createMethod('cot', { promptTemplate }), { code: 'ERR_INVALID_CONFIG' })
})
