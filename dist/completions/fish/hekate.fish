# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_hekate_global_optspecs
    string join \n h/help V/version
end

function __fish_hekate_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_hekate_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_hekate_using_subcommand
    set -l cmd (__fish_hekate_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c hekate -n "__fish_hekate_needs_command" -s h -l help -d 'Print help'
complete -c hekate -n "__fish_hekate_needs_command" -s V -l version -d 'Print version'
complete -c hekate -n "__fish_hekate_needs_command" -f -a "seed" -d 'Seed every torrent found below the given directories'
complete -c hekate -n "__fish_hekate_needs_command" -f -a "index" -d 'Read a tree of torrents into one index file'
complete -c hekate -n "__fish_hekate_needs_command" -f -a "verify" -d 'Hash the content of torrents and say what is missing, short, corrupt or extra'
complete -c hekate -n "__fish_hekate_needs_command" -f -a "config" -d 'Print the default configuration file, or check one'
complete -c hekate -n "__fish_hekate_needs_command" -f -a "status" -d 'Ask the running daemon how it is'
complete -c hekate -n "__fish_hekate_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l index -d 'Serve the torrents of an index file, which `hekate index` makes, in place of directories [default: none]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l root -d 'Where the paths of that index start, when it was copied from another place [default: where the index says]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l state-dir -d 'Where the index of the directories is kept, and what was verified; deleting it costs a scan, and hashing again [default: the user\'s state home]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l rescan -d 'How often the whole library is looked at again, for what is not noticed at once; 0 is never [default: 86400]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l content -d 'Where the content lies [default: beside each torrent file]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l verify -d 'What is looked at before content is served: its size, or (lazy) the hash of each piece before it is first served and after its file has changed [default: size]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -s p -l port -d 'Port to listen on; 0 takes one from the system, which the log names [default: 6969]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l bind -d 'Address to listen on; may be given more than once [default: every address]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -s N -l max-unchoked -d 'Upload slots: how many peers are served at the same time [default: 50]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l max-peers -d 'Connected peers; never more than descriptors allow [default: 10 for each upload slot]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l max-peers-per-ip -d 'Connected peers from one address [default: no limit]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -s C -l credit -d 'What a slot may send before its turn is over, when others wait; K, M, G count in 1024s [default: 1M]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -s T -l max-unchoked-time -d 'Seconds that a slot may be held before its turn is over, when others wait [default: 300]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l max-rate -d 'Bytes a second that are sent at most, all peers together; K, M, G count in 1024s [default: no limit]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l tracker-override -d 'Announce every torrent to this tracker, and to no other [default: the trackers of each torrent]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l shard -d 'Announce the share I of N, where N machines serve the same library; each serves whatever it is asked for [default: all]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l announce-ip -d 'Address that trackers are asked to tell peers; many do not heed it [default: where announces come from]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l announce-port -d 'Port that trackers are told, where a router maps it to another [default: the port that is listened on]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l max-announce-rate -d 'Announces a second to one tracker at most; 0 is no limit [default: 100]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l connect -d 'Call the peers that trackers name, for those who cannot call us: of `all` torrents, or of an info-hash [default: nobody]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l log -d 'What is logged: error, warn, info, debug or trace; for one component as in "info,storage=debug" [default: info]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l log-file -d 'Where the log goes; SIGUSR1 opens it anew [default: standard error]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l status -d 'Where the status page and the metrics can be asked for: ADDRESS:PORT, unix:PATH or off [default: 127.0.0.1:6970, when it is free]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l status-host -d 'Name by which browsers may call the status page, for use behind a proxy [default: addresses and localhost]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l user -d 'Become this user once the addresses are taken, when started as root; without a group, the user\'s own [default: whoever starts it]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l pid-file -d 'File that has the number of the process while it runs; a second one with this file is refused [default: none]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l content-root -d 'Further directory that Landlock lets the daemon read: one that links in the library lead to [default: none]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -s c -l config -d 'Configuration file [default: /etc/hekate/hekate.toml, when there is one]' -r -F
complete -c hekate -n "__fish_hekate_using_subcommand seed" -s 4 -l ipv4 -d 'Serve IPv4 alone'
complete -c hekate -n "__fish_hekate_using_subcommand seed" -s 6 -l ipv6 -d 'Serve IPv6 alone'
complete -c hekate -n "__fish_hekate_using_subcommand seed" -s t -l no-tracker -d 'Do not announce to trackers'
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l daemon -d 'Go to the background once the daemon listens; the log must be a file then'
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l landlock -d 'Let the kernel refuse every file but the library, and what the daemon itself needs (Landlock) [default: true]'
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l no-landlock -d 'The same as --landlock=false'
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l no-new-privs -d 'Never gain rights by running a program (no_new_privs); Landlock needs it [default: true]'
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l allow-new-privs -d 'The same as --no-new-privs=false'
complete -c hekate -n "__fish_hekate_using_subcommand seed" -s l -l list -d 'List what would be served and why the rest is refused, then exit'
complete -c hekate -n "__fish_hekate_using_subcommand seed" -s v -l verbose -d 'Log more: once for --log debug, twice for --log trace'
complete -c hekate -n "__fish_hekate_using_subcommand seed" -s h -l help -d 'Print help'
complete -c hekate -n "__fish_hekate_using_subcommand index" -s o -l output -d 'The index file; one that is there is replaced when the new one is whole' -r -F
complete -c hekate -n "__fish_hekate_using_subcommand index" -l content -d 'Where the content lies [default: beside each torrent file]' -r -F
complete -c hekate -n "__fish_hekate_using_subcommand index" -s h -l help -d 'Print help'
complete -c hekate -n "__fish_hekate_using_subcommand verify" -l index -d 'Verify every torrent of an index file instead' -r -F
complete -c hekate -n "__fish_hekate_using_subcommand verify" -l root -d 'Where the paths of that index start, when it was copied [default: where the index says]' -r -F
complete -c hekate -n "__fish_hekate_using_subcommand verify" -l content -d 'Where the content lies [default: beside each torrent file, or as the index says]' -r -F
complete -c hekate -n "__fish_hekate_using_subcommand verify" -l json -d 'Print one JSON object for each torrent, and one for the sums'
complete -c hekate -n "__fish_hekate_using_subcommand verify" -s h -l help -d 'Print help'
complete -c hekate -n "__fish_hekate_using_subcommand config" -s c -l config -d 'Configuration file [default: /etc/hekate/hekate.toml, when there is one]' -r -F
complete -c hekate -n "__fish_hekate_using_subcommand config" -l default -d 'Print the configuration file with every default'
complete -c hekate -n "__fish_hekate_using_subcommand config" -l check -d 'Say what is wrong with the configuration: exit code 0 or 78'
complete -c hekate -n "__fish_hekate_using_subcommand config" -s h -l help -d 'Print help'
complete -c hekate -n "__fish_hekate_using_subcommand status" -l status -d 'Where the status page and the metrics can be asked for: ADDRESS:PORT, unix:PATH or off [default: 127.0.0.1:6970, when it is free]' -r
complete -c hekate -n "__fish_hekate_using_subcommand status" -s c -l config -d 'Configuration file [default: /etc/hekate/hekate.toml, when there is one]' -r -F
complete -c hekate -n "__fish_hekate_using_subcommand status" -l json -d 'Print JSON'
complete -c hekate -n "__fish_hekate_using_subcommand status" -s h -l help -d 'Print help'
complete -c hekate -n "__fish_hekate_using_subcommand help; and not __fish_seen_subcommand_from seed index verify config status help" -f -a "seed" -d 'Seed every torrent found below the given directories'
complete -c hekate -n "__fish_hekate_using_subcommand help; and not __fish_seen_subcommand_from seed index verify config status help" -f -a "index" -d 'Read a tree of torrents into one index file'
complete -c hekate -n "__fish_hekate_using_subcommand help; and not __fish_seen_subcommand_from seed index verify config status help" -f -a "verify" -d 'Hash the content of torrents and say what is missing, short, corrupt or extra'
complete -c hekate -n "__fish_hekate_using_subcommand help; and not __fish_seen_subcommand_from seed index verify config status help" -f -a "config" -d 'Print the default configuration file, or check one'
complete -c hekate -n "__fish_hekate_using_subcommand help; and not __fish_seen_subcommand_from seed index verify config status help" -f -a "status" -d 'Ask the running daemon how it is'
complete -c hekate -n "__fish_hekate_using_subcommand help; and not __fish_seen_subcommand_from seed index verify config status help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
