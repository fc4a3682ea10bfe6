import { Random } from '../random.ts'
import type { SearchProvider } from '../search/provider.ts'
import { relations, statement, type World } from './world.ts'

/** An engine that knows every fact of a small world: "birthplace of Ada Lund" brings a sentence that says it. */
export function worldProvider(world: World): SearchProvider {
  return {
    name: 'small world',
    search: async (queries, { origins }) =>
      queries.map((query, index) => ({
        documents: findFact(world, query, new Random(origins[index]!.seed)),
      })),
    cacheKey: ({ seed }) => String(seed),
  }
}

function findFact(world: World, query: string, random: Random) {
  for (const relation of Object.values(relations)) {
    if (!query.startsWith(`${relation.heading} `)) continue
    const subject = query.slice(relation.heading.length + 1).trim()
    const object = world.lookup(subject, relation)
    if (object !== null) return [{ title: subject, text: statement(random, subject, relation, object) }]
  }
  return []
}
