// Loaded before the app by --require, in each of its threads and Node processes: writes down which variables of the
// environment are read, and where. What is read is answered as ever.
'use strict'

const recordsPath = process.env.SUPERVISOR_DETECT_RECORDS
if (recordsPath) intercept(recordsPath)

function intercept(path) {
  const { openSync, writeSync, constants } = require('node:fs')
  const nodeModule = require('node:module')
  const { fileURLToPath } = require('node:url')
  const maxRecordBytes = 4096 // a write of this size to a pipe is never torn, pipe(7)
  const seen = new Set()
  const own = new Set() // names that the app gives itself: reading them tells nothing about what it needs
  let real = process.env
  let listed = { at: '', names: new Set() }
  let descriptor = -1
  let busy = false

  function send(record) {
    const line = Buffer.from(JSON.stringify(record) + '\n')
    if (line.length > maxRecordBytes) return
    for (let attempt = 0; attempt < 2; attempt++) {
      try {
        if (descriptor < 0) descriptor = openSync(path, constants.O_WRONLY)
        writeSync(descriptor, line)
        return
      } catch {
        descriptor = -1 // the app may have closed what it did not open
      }
    }
  }

  function callSites() {
    const { prepareStackTrace, stackTraceLimit } = Error
    const holder = {}
    try {
      Error.prepareStackTrace = (_, sites) => sites
      Error.stackTraceLimit = 80
      Error.captureStackTrace(holder, callSites)
      return Array.isArray(holder.stack) ? holder.stack : []
    } finally {
      Error.prepareStackTrace = prepareStackTrace
      Error.stackTraceLimit = stackTraceLimit
    }
  }

  function fileOf(site) {
    const name = site.getFileName()
    if (!name || name === __filename) return ''
    return name.startsWith('file:') ? fileURLToPath(name) : name
  }

  const isNode = (file) => file.startsWith('node:')
  const isLibrary = (file) => /[\\/]node_modules[\\/]/.test(file)
  const isLoader = (file) => file.startsWith('node:internal/modules/')

  // Who reads: the innermost frame decides what it is, the first frame of the app where it is.
  function origin() {
    const found = { by: '', library: '', loading: false, file: '', line: 0, column: 0, at: '' }
    for (const site of callSites()) {
      const file = fileOf(site)
      if (!file) continue
      if (!found.by) {
        found.by = isNode(file) ? 'runtime' : isLibrary(file) ? 'library' : 'app'
        found.at = `${file}:${site.getLineNumber()}:${site.getColumnNumber()}`
      }
      if (isNode(file)) found.loading ||= isLoader(file)
      else if (isLibrary(file)) found.library ||= file
      else return place(found, file, site.getLineNumber(), site.getColumnNumber())
    }
    return found
  }

  // Where the source was compiled, its own lines.
  function place(found, file, line, column) {
    Object.assign(found, { file, line, column })
    const entry = nodeModule.findSourceMap(file)?.findEntry(line - 1, column - 1)
    if (entry?.originalLine !== undefined) {
      Object.assign(found, { line: entry.originalLine + 1, column: entry.originalColumn + 1 })
    }
    return found
  }

  // What JavaScript itself asks any object for.
  const isProtocol = (name) => name in Object.prototype || name === 'toJSON' || name === 'then'

  function note(name, how, given) {
    if (typeof name !== 'string' || busy || own.has(name) || isProtocol(name)) return
    busy = true
    try {
      const where = origin()
      if (how === 'list') {
        listed = { at: where.at, names: new Set(Reflect.ownKeys(real)) }
        return
      }
      // {...process.env} and Object.entries ask for each name where they asked for the list; Node itself does for each
      // process that it starts.
      if (where.at === listed.at && listed.names.has(name)) return
      const absent = real[name] === undefined
      if (!absent && where.by === 'runtime') return
      const key = `${name} ${where.at} ${where.file}:${where.line}:${where.column} ${absent}`
      if (seen.has(key)) return
      if (seen.size < 100000) seen.add(key)
      const { at, ...said } = where
      send({ name, how, absent, given, ...said })
    } finally {
      busy = false
    }
  }

  function claim(name) {
    if (typeof name !== 'string' || busy) return
    busy = true
    try {
      if (origin().by === 'app') own.add(name)
    } finally {
      busy = false
    }
  }

  // `given`: this is the object that the app itself took and may have handed to a library.
  const wrap = (given) =>
    new Proxy(real, {
      get(_, name) {
        note(name, 'get', given)
        return real[name]
      },
      has(_, name) {
        note(name, 'in', given)
        return name in real
      },
      getOwnPropertyDescriptor(_, name) {
        note(name, 'in', given)
        return Reflect.getOwnPropertyDescriptor(real, name)
      },
      ownKeys() {
        note('', 'list', given)
        return Reflect.ownKeys(real)
      },
      set(_, name, value) {
        claim(name)
        real[name] = value
        return true
      },
      defineProperty(_, name, descriptor) {
        claim(name)
        return Reflect.defineProperty(real, name, descriptor)
      },
      deleteProperty(_, name) {
        claim(name)
        return delete real[name]
      },
    })

  function takenByLibrary() {
    if (busy) return false
    busy = true
    try {
      return origin().by === 'library'
    } finally {
      busy = false
    }
  }

  let handed = { app: wrap(true), library: wrap(false) }
  Object.defineProperty(process, 'env', {
    configurable: true,
    enumerable: true,
    get: () => (takenByLibrary() ? handed.library : handed.app),
    set(value) {
      if (value === handed.app || value === handed.library) return
      real = value
      handed = { app: wrap(true), library: wrap(false) }
    },
  })
}
