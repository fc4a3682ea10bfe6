import test from 'ava'
import { createWorld, queryText, relations } from '../../lib/quickstart/world.ts'
import { worldProvider } from '../../lib/quickstart/world-search.ts'
import { searchContext, someOrigin, textsOf } from '../helpers/search.ts'

const world = createWorld(0)
const provider = worldProvider(world)

test('every fact of the world is found by its query, in a sentence that says it', async (t) => {
  const queries = world.facts.map(({ subject, relation }) => queryText(subject, relation))
  const results = await provider.search(queries, searchContext(queries.length))
  for (const [index, { subject, relation, object }] of world.facts.entries()) {
    const [result] = [results[index]!]
    t.deepEqual('documents' in result && result.documents.map(({ title }) => title), [subject])
    const [text] = textsOf(result)
    const said = relation.statements.map((one) => one.replace('{x}', subject).replace('{y}', object))
    t.true(said.includes(text!), text)
  }
})

test('the searches of a two-hop question lead to its answer', async (t) => {
  const questions = world.train.filter(({ hops }) => hops.length === 2)
  t.true(questions.length > 50)
  for (const { subject, hops, golden_answers: golden } of questions) {
    const between = world.lookup(subject, hops[0]!)!
    const [first, second] = await provider.search(
      [queryText(subject, hops[0]!), queryText(between, hops[1]!)],
      searchContext(2),
    )
    t.true(textsOf(first)[0]!.includes(between))
    t.true(textsOf(second)[0]!.includes(golden[0]!))
  }
})

test('what is no fact is not found', async (t) => {
  const [country, person] = [world.entities.country[0]!, world.entities.person[0]!]
  const queries = [
    '',
    'birthplace of',
    'birthplace of Nobody',
    `capital of ${person}`,
    `birthplace of ${country}`,
    person,
  ]
  const results = await provider.search(queries, searchContext(queries.length))
  t.deepEqual(
    results,
    queries.map(() => ({ documents: [] })),
  )
})

test('the wording is drawn from the seed of the search, which a cache keeps apart', async (t) => {
  const query = queryText(world.facts[0]!.subject, world.facts[0]!.relation)
  const wording = async (seed: number) => {
    const origins = [{ ...someOrigin, seed }]
    return textsOf((await provider.search([query], { ...searchContext(1), origins }))[0])[0]!
  }
  const seeds = Array.from({ length: 20 }, (_, seed) => seed)
  const first = await Promise.all(seeds.map(wording))
  t.deepEqual(await Promise.all(seeds.map(wording)), first)
  t.is(new Set(first).size, relations.birthplace.statements.length)
  const keys = seeds.map((seed) => provider.cacheKey!({ ...someOrigin, seed }, { step: 0, steps: 0 }))
  t.is(new Set(keys).size, seeds.length)
})
