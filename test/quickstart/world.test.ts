import { readFileSync } from 'node:fs'
import { Tokenizer } from '@huggingface/tokenizers'
import test from 'ava'
import { demonstration, factText, worldPromptTemplate } from '../../lib/quickstart/demonstrations.ts'
import { createWorld, queryText, relations } from '../../lib/quickstart/world.ts'
import { Random } from '../../lib/random.ts'

const tokenizer = new Tokenizer(
  JSON.parse(readFileSync(new URL('../../assets/quickstart-tokenizer.json', import.meta.url), 'utf8')),
  {},
)
const tokens = (text: string) => tokenizer.encode(text, { add_special_tokens: false })

test('a world has 136 entities, 238 facts and 474 questions, and is a function of its seed', (t) => {
  const world = createWorld(3)
  t.is(Object.values(world.entities).flat().length, 136)
  t.is(world.facts.length, 238)
  t.is(world.train.length + world.heldOut.length, 474)
  t.deepEqual(createWorld(3).facts, world.facts)
  t.notDeepEqual(createWorld(4).facts, world.facts)
})

test('every answer follows from the facts, hop by hop', (t) => {
  const world = createWorld(0)
  for (const question of [...world.train, ...world.heldOut]) {
    const answer = question.hops.reduce((subject, hop) => world.lookup(subject, hop)!, question.subject)
    t.deepEqual(question.golden_answers, [answer])
  }
})

test('no training question shares its first hop with a held-out question', (t) => {
  for (const seed of [0, 1, 2]) {
    const world = createWorld(seed)
    const firstHop = (q: { subject: string; hops: { name: string }[] }) => `${q.hops[0]!.name} ${q.subject}`
    const trained = new Set(world.train.map(firstHop))
    t.false(world.heldOut.some((question) => trained.has(firstHop(question))))
    const share = world.heldOut.length / 474
    t.true(share > 0.35 && share < 0.45, `held out ${share}`)
  }
})

test('no wording serves two relations', (t) => {
  const world = createWorld(0)
  const meaning = new Map<string, string>()
  for (const seed of [0, 1, 2, 3, 4])
    for (const { question, subject, hops } of [...createWorld(seed).train, ...createWorld(seed).heldOut]) {
      const wording = question.replace(subject, '{x}')
      const name = `${hops[0]!.from}: ${hops.map((hop) => hop.name).join('+')}`
      t.is(meaning.get(wording) ?? name, name, wording)
      meaning.set(wording, name)
    }
  t.true(world.facts.every((fact) => fact.relation.statements.length === 3))
})

test('the information in a demonstration is true of what was asked', (t) => {
  const world = createWorld(1)
  const random = new Random(1)
  let searches = 0
  for (const question of world.train) {
    const { completion } = demonstration(random, world, question)
    const pairs = completion.matchAll(/<search>([^<]*)<\/search><information>([^<]*)<\/information>/g)
    for (const [, query, information] of pairs) {
      searches++
      const fact = world.facts.find((fact) => queryText(fact.subject, fact.relation) === query)
      t.truthy(fact, query)
      t.true(information!.includes(fact!.subject) && information!.includes(fact!.object))
    }
  }
  t.true(searches > 50)
})

test('names are single tokens and tags are several', (t) => {
  const world = createWorld(7)
  for (const city of world.entities.city) {
    t.is(tokens(` ${city}`).ids.length, 1, city)
    t.is(tokens(`>${city}<`).ids.length, 3, city)
  }
  t.is(tokens('<think>').ids.length, 3)
  t.is(tokens('</information>').ids.length, 4)
})

test('a whole two-hop demonstration fits in 112 tokens', (t) => {
  const world = createWorld(0)
  const random = new Random(0)
  const none = {
    direct: 0,
    directRight: 0,
    wrongEntity: 0,
    wrongRelation: 0,
    stopAfterFirstHop: 0,
    wrongAnswer: 0,
    formDefect: 0,
  }
  for (const question of world.train.filter(({ hops }) => hops.length === 2)) {
    const { prompt, completion } = demonstration(random, world, question, none)
    t.true(prompt.startsWith(worldPromptTemplate.slice(0, 9)))
    t.true(completion.endsWith(`<answer>${question.golden_answers[0]}</answer>`))
    const length = tokens(completion).ids.length
    t.true(length <= 112, `${length} tokens: ${completion}`)
  }
})

test('half of the fact sentences carry an index heading', (t) => {
  const lines = factText(new Random(0), createWorld(0)).split('\n')
  const headed = lines.filter((line) =>
    Object.values(relations).some(({ heading }) => line.startsWith(heading)),
  )
  t.is(lines.length, 238)
  t.true(headed.length > 90 && headed.length < 150)
})
