-- Sessions, their lines, and the nodes that run them. Everything that is written goes through the functions.

create table lunar.node (
    id bigint generated always as identity primary key, -- one incarnation of one process
    name text not null,
    beat timestamptz not null default clock_timestamp(),
    steady timestamptz not null default clock_timestamp(), -- since when its beats came without a gap
    dead boolean not null default false
) with (fillfactor = 50);

create sequence lunar.epoch; -- every taking of a lease has a number of its own

create table lunar.session (
    key bigint generated always as identity primary key,
    name bytea not null unique, -- what the id is found by: the id, or a digest of one that is too long
    id bytea not null,
    tag text not null default substr(gen_random_uuid()::text, 1, 8), -- tells its cursors from a namesake's
    seq bigint not null default 0, -- lines so far
    bytes bigint not null default 0,
    modified timestamptz not null default clock_timestamp(),
    owner bigint, -- the node that runs its turns; may be one that is dead
    epoch bigint not null default 0,
    open boolean not null default false, -- something in it may wait for an answer or for its delivery
    unseen boolean not null default false -- another node wrote since its owner last looked
) with (fillfactor = 70);

create index on lunar.session (owner) where owner is not null;
create index on lunar.session (owner) where open;
create index on lunar.session (owner) where unseen;

create table lunar.event (
    session bigint,
    seq bigint,
    line bytea not null, -- as in a file, without its newline
    primary key (session, seq)
);

create table lunar.message (
    session bigint,
    id bytea,
    seq bigint not null,
    primary key (session, id)
);

create table lunar.probe (
    node bigint primary key,
    at timestamptz not null
);

create function lunar.lives(p_node bigint) returns boolean
language sql stable as $$ select exists (select from lunar.node where id = p_node and not dead) $$;

-- Store lines behind all earlier ones. p_epoch: only under this lease. p_known: up to where the caller has
-- what is stored; the lines between that and its own come back as gap.
create function lunar.append(
    p_name bytea, p_id bytea, p_node bigint, p_claim boolean, p_epoch bigint, p_tag text, p_known bigint,
    p_open boolean, p_size bigint, p_header bytea, p_lines bytea[], p_ids bytea[], p_places int[],
    out outcome text, out tag text, out place bigint, out line bytea, out owner bigint, out epoch bigint,
    out gap bytea[]
) language plpgsql as $$
declare
    s lunar.session;
    made boolean := false;
begin
    loop
        select * into s from lunar.session x where x.name = p_name for update;
        exit when found;
        if p_epoch is not null then
            outcome := 'lost';
            return;
        end if;
        insert into lunar.session (name, id) values (p_name, p_id)
            on conflict (name) do nothing returning * into s;
        made := found;
        exit when made;
    end loop;
    tag := s.tag;
    if p_epoch is not null and (s.owner is distinct from p_node or s.epoch <> p_epoch) then
        outcome := 'lost';
        return;
    end if;
    if not made and cardinality(p_ids) > 0 then
        select m.seq, e.line into place, line
            from lunar.message m join lunar.event e on e.session = m.session and e.seq = m.seq
            where m.session = s.key and m.id = any (p_ids) order by m.seq limit 1;
        if found then
            outcome := 'repeated';
            return;
        end if;
    end if;
    if p_claim and (s.owner is null or s.owner <> p_node and not lunar.lives(s.owner)) then
        s.owner := p_node;
        s.epoch := nextval('lunar.epoch');
    end if;
    if made then
        insert into lunar.event values (s.key, 1, p_header);
        s.seq := 1;
        s.bytes := octet_length(p_header) + 1;
    elsif p_tag = s.tag and p_known < s.seq then
        select array_agg(x.line order by x.seq) into gap
            from lunar.event x where x.session = s.key and x.seq > p_known and x.seq <= p_known + 100;
    end if;
    place := s.seq + 1;
    if cardinality(p_lines) = 1 then
        insert into lunar.event values (s.key, place, p_lines[1]);
    else
        insert into lunar.event
            select s.key, s.seq + n, l from unnest(p_lines) with ordinality as given (l, n);
    end if;
    if cardinality(p_ids) > 0 then
        insert into lunar.message select s.key, i, place + p from unnest(p_ids, p_places) as given (i, p);
    end if;
    update lunar.session x set
        seq = s.seq + cardinality(p_lines), bytes = s.bytes + p_size, modified = clock_timestamp(),
        owner = s.owner, epoch = s.epoch, open = s.open or p_open,
        unseen = case when s.owner = p_node then s.unseen and p_known is null else s.owner is not null end
        where x.key = s.key;
    outcome := 'stored';
    owner := s.owner;
    epoch := s.epoch;
end $$;

-- Take the lease where nobody who lives has it. p_renew: under another number, also where it is held.
-- What is not synced here is synced by the first append that needs it: a lease that is lost is none.
create function lunar.claim(
    p_name bytea, p_node bigint, p_renew boolean, out epoch bigint, out head bigint, out tag text
) language plpgsql as $$
declare
    s lunar.session;
begin
    set local synchronous_commit = off;
    select * into s from lunar.session x where x.name = p_name for update;
    if not found then
        return;
    end if;
    head := s.seq;
    tag := s.tag;
    if s.owner = p_node and not p_renew then
        epoch := s.epoch;
    elsif s.owner = p_node or not p_renew and (s.owner is null or not lunar.lives(s.owner)) then
        epoch := nextval('lunar.epoch');
        update lunar.session x set owner = p_node, epoch = claim.epoch, unseen = false where x.key = s.key;
    end if;
end $$;

-- Nothing is open, and the lease is given back: settled, or newer (others wrote more), or lost.
create function lunar.settle(p_name bytea, p_node bigint, p_epoch bigint, p_seq bigint) returns text
language plpgsql as $$
declare
    s lunar.session;
begin
    set local synchronous_commit = off;
    select * into s from lunar.session where name = p_name for update;
    if not found or s.owner is distinct from p_node or s.epoch <> p_epoch then
        return 'lost';
    elsif s.seq <> p_seq then
        return 'newer';
    end if;
    update lunar.session set owner = null, open = false, unseen = false where key = s.key;
    return 'settled';
end $$;

create function lunar.release(p_name bytea, p_node bigint) returns void
language plpgsql as $$
begin
    set local synchronous_commit = off;
    update lunar.session set owner = null, unseen = false where name = p_name and owner = p_node;
end $$;

create function lunar.remove(p_name bytea, out existed boolean, out ids bytea[])
language plpgsql as $$
declare
    k bigint;
begin
    select key into k from lunar.session where name = p_name for update;
    existed := k is not null;
    if existed then
        with gone as (delete from lunar.message where session = k returning id)
            select array_agg(id) into ids from gone;
        delete from lunar.event where session = k;
        delete from lunar.session where key = k;
    end if;
end $$;

-- Say that a node lives; hear what there is to do. Who was away, or whose database was, declares nobody dead
-- before the others had their time to beat as well.
create function lunar.beat(
    p_node bigint, p_room int, p_late interval,
    out alive boolean, out woken bytea[], out taken bytea[], out epochs bigint[]
) language plpgsql as $$
declare
    t timestamptz := clock_timestamp();
    since timestamptz;
    gone bigint[];
begin
    set local synchronous_commit = off;
    update lunar.node set steady = case when t - beat > p_late / 2 or beat > t then t else steady end, beat = t
        where id = p_node and not dead returning steady into since;
    alive := found;
    if not alive then
        return;
    end if;
    if t - since >= p_late then
        update lunar.node set dead = true where id in (
            select id from lunar.node where not dead and beat < t - p_late for update skip locked);
    end if;
    -- Nothing here may wait for a row: whoever holds one may wait for a standby, and this node must be heard.
    with seen as (
        update lunar.session set unseen = false where key in (
            select key from lunar.session where owner = p_node and unseen for update skip locked)
            returning id
    ) select array_agg(id) into woken from seen;
    select array_agg(id) into gone from lunar.node where dead;
    if p_room > 0 then
        with left_over as (
            select key from lunar.session where open and owner is null
                for update skip locked limit p_room
        ), orphans as (
            select key from lunar.session where open and owner = any (gone)
                for update skip locked limit p_room
        ), mine as (
            update lunar.session s set owner = p_node, epoch = nextval('lunar.epoch'), unseen = false
                where s.key in (select key from left_over union all select key from orphans limit p_room)
                returning s.id, s.epoch
        ) select array_agg(id), array_agg(epoch) into taken, epochs from mine;
    end if;
    if gone is not null then
        update lunar.session set owner = null where key in (
            select key from lunar.session where owner = any (gone) and not open
                for update skip locked limit 1000);
        delete from lunar.node n where n.dead and n.beat < t - interval '1 hour'
            and not exists (select from lunar.session where owner = n.id);
    end if;
end $$;

create function lunar.leave(p_node bigint) returns void
language plpgsql as $$
begin
    update lunar.session set owner = null, unseen = false where owner = p_node;
    update lunar.node set dead = true where id = p_node;
    delete from lunar.probe where node = p_node;
end $$;
