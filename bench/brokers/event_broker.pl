#!/usr/bin/perl
# The broker of bench/c/broker.c on Perl's Event, in the manner of the 2003
# original: event_broker.pl SOCKET PORT
#
# Nothing is written before its descriptor was reported writable, and every
# change of direction cancels a watcher and makes a new one.
use strict;
use warnings;
use Errno qw(EAGAIN EINPROGRESS);
use Event;
use IO::Socket::UNIX;
use Socket qw(:DEFAULT IPPROTO_TCP TCP_NODELAY);

use constant { MAX_LINKS => 10, MAX_DIALLING => 3, CHUNK => 65536 };

my ($path, $port) = @ARGV;
my (@idle, @queue);
my ($links, $dialling) = (0, 0);
$SIG{PIPE} = 'IGNORE';

# Replaces the watcher of a client or link; no direction: none.
sub turn {
    my ($end, $direction, $callback) = @_;
    $end->{watcher}->cancel if $end->{watcher};
    $end->{watcher} = $direction && Event->io(
        fd   => $end->{socket},
        poll => $direction,
        cb   => sub { $callback->($end) },
    );
}

# Appends what is there to $end->{in}; false at the end of the stream.
sub receive {
    my ($end) = @_;
    my $n = sysread $end->{socket}, $end->{in}, CHUNK, length $end->{in};
    return defined $n ? $n : $!{EAGAIN};
}

# Writes from $end->{out}; false when the other side is gone.
sub transmit {
    my ($end) = @_;
    my $n = syswrite $end->{socket}, $end->{out};
    return $!{EAGAIN} unless defined $n;
    substr($end->{out}, 0, $n) = '';
    return 1;
}

# ---- clients

sub client_arrived {
    my ($listener) = @_;
    my $socket = $listener->{socket}->accept or return;
    $socket->blocking(0);
    turn({ socket => $socket, in => '', out => '' }, 'r', \&client_readable);
}

sub client_close {
    my ($client) = @_;
    turn($client);
    close $client->{socket};
}

sub client_readable {
    my ($client) = @_;
    receive($client) ? client_next($client) : client_close($client);
}

# While it waits for its reply nothing is watched of it.
sub client_next {
    my ($client) = @_;
    my $end = 1 + index $client->{in}, "\n" or return turn($client, 'r', \&client_readable);
    my $line = substr $client->{in}, 0, $end, '';
    turn($client);
    my $work = { client => $client, line => $line };
    if (my $link = pop @idle) {
        link_send($link, $work);
    } else {
        push @queue, $work;
        open_links();
    }
}

sub client_reply {
    my ($client, $line) = @_;
    $client->{out} = $line;
    turn($client, 'w', \&client_writable);
}

sub client_writable {
    my ($client) = @_;
    return client_close($client) unless transmit($client);
    client_next($client) unless length $client->{out};
}

# ---- links

sub open_links {
    while ($links < MAX_LINKS && $dialling < MAX_DIALLING && $dialling < @queue) {
        socket my $socket, PF_INET, SOCK_STREAM, 0 or die "socket: $!";
        bless $socket, 'IO::Socket';
        $socket->blocking(0);
        setsockopt $socket, IPPROTO_TCP, TCP_NODELAY, 1;
        connect $socket, pack_sockaddr_in($port, INADDR_LOOPBACK) or $!{EINPROGRESS}
            or die "connect: $!";
        $links++;
        $dialling++;
        turn({ socket => $socket, in => '', out => '' }, 'w', \&link_connected);
    }
}

sub link_connected {
    my ($link) = @_;
    $dialling--;
    return link_close($link) if unpack 'i', getsockopt $link->{socket}, SOL_SOCKET, SO_ERROR;
    link_free($link);
    open_links();
}

sub link_close {
    my ($link) = @_;
    turn($link);
    close $link->{socket};
    $links--;
    @idle = grep { $_ != $link } @idle;
    client_reply($link->{work}{client}, "con_lost\n") if $link->{work};
    while (@queue && !$links) {
        client_reply((shift @queue)->{client}, "con_lost\n");
    }
}

# Takes the next request, or waits for one and watches for the peer's close.
sub link_free {
    my ($link) = @_;
    if (my $work = shift @queue) {
        link_send($link, $work);
    } else {
        push @idle, $link;
        turn($link, 'r', \&link_readable);
    }
}

sub link_send {
    my ($link, $work) = @_;
    $link->{work} = $work;
    $link->{out} = $work->{line};
    turn($link, 'w', \&link_writable);
}

sub link_writable {
    my ($link) = @_;
    return link_close($link) unless transmit($link);
    turn($link, 'r', \&link_readable) unless length $link->{out};
}

sub link_readable {
    my ($link) = @_;
    my $known = length $link->{in};
    return link_close($link) unless receive($link) && $link->{work};
    my $end = 1 + index $link->{in}, "\n", $known or return;
    return link_close($link) if $end != length $link->{in};
    my $work = delete $link->{work};
    client_reply($work->{client}, $link->{in});
    $link->{in} = '';
    link_free($link);
}

my $listener = IO::Socket::UNIX->new(Local => $path, Listen => 4096) or die "$path: $!";
$listener->blocking(0);
turn({ socket => $listener }, 'r', \&client_arrived);
Event::loop();
