/** Invented names of the small world. Every seed draws from these lists, so one tokenizer serves all seeds. */

const words = (text: string): readonly string[] => Object.freeze(text.trim().split(/\s+/))

export const firstNames = words(`Ada Boris Clara Dario Edith Felix Greta Hugo Irene Jonas Katja Leon
  Mira Nils Olga Pavel Rosa Sven Tilda Ugo Vera Wim Yara Zeno`)

export const lastNames = words(`Abel Brandt Corwin Dahl Ekman Falk Grimm Holt Iversen Jansen Krall Lund
  Moser Norden Oster Pryce Quist Rask Sorel Thorn Ulven Voss Wexler Ziegler`)

export const cityNames =
  words(`Arvane Belmor Calder Dunwick Elsbury Fenmoor Gildan Harrow Istel Jorvale Kelmar
  Lorne Mirefold Nestral Orvane Pellham Quenby Rosmar Selwick Tarnby Uldale Vexford Wyndle Yarrow`)

export const countryNames = words('Aldoria Brevia Castane Dromund Estara Farland Gravia Heland Ithria Jundar')

export const companyNames =
  words(`Acrotek Bluefin Coppergate Deltron Everlight Foxglove Granex Highmark Inkwell
  Juniper Kestrel Lumora Marblex Northway Orbiton Pinecrest Quartzen Redwood Silverton Tidewater`)

export const languages = words('Aldic Brevan Castic Dromic Estaran Farlish Gravan Helic Ithran Jundic')

export const currencies = words('arlet bron cavel drell esker florin gildar henna izzar jolt')

export const jobs = words(`baker carpenter dentist engineer farmer gardener historian
  jeweller lawyer mechanic nurse painter sailor teacher`)
