/** Help texts. */

const flags = `flags:
  --config, -c FILE       config file (default /etc/troupe/config.toml, which may be missing)
  --address, -a SOCKET    socket for clients; ttrpc listens on SOCKET.ttrpc
  --root DIR              what must survive a reboot
  --state DIR             what must not
  --log-level, -l LEVEL   trace, debug, info, warn, error, fatal or panic
  --watch                 for development: reload a plugin when a file of its changes
  --version, -v           print the version
  --help, -h              print this, or the help of a command
`;

const topics: Readonly<Record<string, string>> = {
  '': `trouped: container daemon that speaks the containerd API

usage: trouped [flags] [command]

Without a command it runs the daemon, in the foreground.

commands:
  plan                    print which plugins start, in which order and why
  plugins ls | top | …    look at the plugins of the daemon that runs, reload one, profile one; see 'help plugins'
  config default          print a config file with every key and its default
  config dump             print the config that is in effect
  config check            read the config and say what is wrong with it
  config explain KEY      print what a key means, what it is set to and where
  config migrate          print the config file in the newest format
  config reload           have the daemon that runs read its config again; so does SIGHUP
  registry test REF       resolve a reference as a pull would, and print every request on the way
  content verify [--drop] hash every blob again and say which are damaged
  publish                 publish an event, read from stdin
  oci-hook -- CMD ARGS    run a command as OCI hook, with {{id}} and the like filled in

${flags}`,
  plan: `usage: trouped [flags] plan

Reads the config and the manifests of all plugins and prints the order of starting, or everything that stands against it. Starts nothing.
`,
  plugins: `usage: trouped [--config FILE | --address SOCKET] plugins COMMAND

  ls [ID…] [--json]         state, thread, generation, restarts, memory, CPU, calls, failures and queue of each
  top [--seconds N]         the same and each method's rate and latency, every second; q ends it
  watch [--json]            every change of state from now on
  reload [--force] ID…      replace by what the folder holds now; calls wait and none fails. What is wrong with it keeps the old one
  restart ID…               stop and start, without handing state over
  stop ID… · start ID…      calls of one that is stopped fail as unavailable
  profile ID [--seconds N] [-o FILE]
                            what its thread spends its time on, as V8's .cpuprofile (default: 5 s, ID.cpuprofile; -: stdout)
  plan                      the order of starting in effect, and what is left out
  config-diff               what a reload of the config would do; so does config reload --dry-run
  test FOLDER               run the tests in a plugin's folder, wherever it lies
`,
  config: `usage: trouped [flags] config default | dump | check | migrate | explain KEY | reload [--dry-run]

  default    every key with its default and what it means, plugins' keys included
  dump       the config in effect: file, imports and flags merged
  check      nothing when all is well; else every mistake with file and line
  migrate    the file named by --config in format version 3, from 1, 2 or 4; comments are lost
  explain    one key, such as grpc.address or plugins."io.containerd.gc.v1.scheduler".pause_threshold
  reload     the daemon that runs reads its config again: all of what changed is done, or nothing; --dry-run says what it would be
`,
  registry: `usage: trouped [--config FILE | --address SOCKET] registry test [--plain-http] [--hosts-dir DIR] REFERENCE

Has the daemon resolve a reference with its own configuration, credentials and network, as a pull would. Prints the hosts that may be asked, each request with
what it was for, its status, time and what came of it, and what the reference names. Nothing is stored. Exit 1 when it cannot be resolved.

  --plain-http       hosts without a hosts.toml are spoken to without TLS
  --hosts-dir DIR    in place of the config's directories with hosts.toml files
`,
  content: `usage: trouped [--config FILE | --address SOCKET] content verify [--drop]

Has the daemon read every blob of every namespace and compare it with its digest, several at once, behind all other work. Exit 1 when one is damaged.

  --drop    take damaged ones away, so that the next pull brings them anew
`,
  publish: `usage: trouped --address SOCKET publish --namespace NS --topic TOPIC < ANY

Sends one event to the daemon on SOCKET. Stdin is a google.protobuf.Any.
`,
  'oci-hook': `usage: trouped oci-hook -- CMD ARGS

Reads the container's state (OCI runtime specification, section State) from stdin and runs CMD. In ARGS and in the environment
{{id}}, {{pid}}, {{status}}, {{bundle}}, {{rootfs}} and {{annotation "KEY"}} stand for the container's.
`,
};

/** The help of a command; of everything for a name that is none. */
export function helpText(topic = ''): string {
  return Object.hasOwn(topics, topic) ? topics[topic]! : topics['']!;
}
