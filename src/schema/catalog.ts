/**
 * The queries of the fingerprint. Each gives rows (object, property, value); what differs by server version, by owner or
 * by the queues there are is left out or written alike. They run with search_path = pg_catalog, so that names of ours
 * come out qualified.
 */

const schemas = `('pgq', 'pgq_coop', 'pgq_ext', 'pgq_node', 'londiste', 'skytools')`

/** Tables, indexes and sequences of ours: neither the ledger's nor those made for one queue. */
const relations = `
  relations as (
    select c.*, n.nspname, format('%I.%I', n.nspname, c.relname) as label
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname in ${schemas}
       and not (n.nspname = 'pgq' and c.relname ~ '^event_[0-9]+(_|$)')
       and not (n.nspname = 'skytools' and c.relname ~ '^migrations(_|$)')
  )`

/** An ACL without its grantor; the owner is called 'owner'. MAINTAIN came with Postgres 17. */
function acl(column: string, kind: string, owner: string): string {
  return `(select coalesce(string_agg(entry, ', ' order by entry collate "C"), '')
     from (select format('%s=%s', case when a.grantee = ${owner} then 'owner' when a.grantee = 0 then 'public'
                                       else quote_ident(coalesce(g.rolname, a.grantee::text)) end,
                         string_agg(lower(a.privilege_type) || case when a.is_grantable then '*' else '' end, ' '
                                    order by a.privilege_type)) as entry
             from aclexplode(coalesce(${column}, acldefault(${kind}, ${owner}))) a left join pg_roles g on g.oid = a.grantee
            where a.privilege_type <> 'MAINTAIN'
            group by a.grantee, g.rolname) entries)`
}

export interface CatalogQuery {
  readonly kind: string
  readonly sql: string
}

const schemaRows = `
  select format('schema %I', n.nspname) as object, p.property, p.value
    from pg_namespace n,
         lateral (values ('comment', obj_description(n.oid, 'pg_namespace')),
                         ('privileges', ${acl('n.nspacl', `'n'`, 'n.nspowner')})) as p (property, value)
   where n.nspname in ${schemas}`

const relationRows = `
  with ${relations}
  select format('%s %s', case r.relkind when 'v' then 'view' when 'm' then 'view' when 'S' then 'sequence'
                                        when 'c' then 'type' else 'table' end, r.label) as object, p.property, p.value
    from relations r,
         lateral (values
           ('kind', format('%s %s', r.relkind, r.relpersistence)),
           ('options', array_to_string(r.reloptions, ', ')),
           ('parents', (select string_agg(i.inhparent::regclass::text, ', ' order by i.inhseqno)
                          from pg_inherits i where i.inhrelid = r.oid)),
           ('row security', case when r.relrowsecurity then 'enabled' end),
           ('rules', (select string_agg(format('%s %s', w.rulename, w.ev_enabled), ', ' order by w.rulename)
                        from pg_rewrite w where w.ev_class = r.oid and w.rulename <> '_RETURN')),
           ('definition', case when r.relkind in ('v', 'm') then pg_get_viewdef(r.oid) end),
           ('sequence', (select format('%s start %s step %s min %s max %s cache %s cycle %s', format_type(s.seqtypid, null),
                                       s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache, s.seqcycle)
                           from pg_sequence s where s.seqrelid = r.oid)),
           ('owned by', (select format('%s.%I', d.refobjid::regclass, a.attname)
                           from pg_depend d join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
                          where d.classid = 'pg_class'::regclass and d.objid = r.oid and r.relkind = 'S'
                            and d.refclassid = 'pg_class'::regclass and d.deptype in ('a', 'i'))),
           ('comment', obj_description(r.oid, 'pg_class')),
           ('privileges', ${acl('r.relacl', `case r.relkind when 'S' then 's' else 'r' end::"char"`, 'r.relowner')})
         ) as p (property, value)
   where r.relkind in ('r', 'p', 'v', 'm', 'S', 'f', 'c')`

const columnRows = `
  with ${relations},
  columns as (
    select a.*, r.label, r.relowner,
           row_number() over (partition by a.attrelid order by a.attnum) as rank
      from relations r join pg_attribute a on a.attrelid = r.oid
     where r.relkind in ('r', 'p', 'v', 'm', 'f', 'c') and a.attnum > 0 and not a.attisdropped
  )
  select format('column %s.%I', c.label, c.attname) as object, p.property, p.value
    from columns c,
         lateral (values
           ('rank', c.rank::text),
           ('type', format_type(c.atttypid, c.atttypmod)),
           ('not null', case when c.attnotnull then 'yes' end),
           ('default', (select pg_get_expr(d.adbin, d.adrelid) from pg_attrdef d
                         where d.adrelid = c.attrelid and d.adnum = c.attnum)),
           ('identity', nullif(c.attidentity, '')::text),
           ('generated', nullif(c.attgenerated, '')::text),
           ('collation', (select o.collname::text from pg_collation o join pg_type t on t.oid = c.atttypid
                           where o.oid = c.attcollation and c.attcollation <> t.typcollation)),
           ('comment', col_description(c.attrelid, c.attnum)),
           ('privileges', (select nullif(${acl('c.attacl', `'c'`, 'c.relowner')}, '')))
         ) as p (property, value)`

const constraintRows = `
  with ${relations}
  select format('constraint %I on %s', k.conname, r.label) as object, 'definition' as property,
         pg_get_constraintdef(k.oid) || case when k.convalidated then '' else ' (not valid)' end as value
    from relations r join pg_constraint k on k.conrelid = r.oid
   where k.contype <> 'n'`

const indexRows = `
  with ${relations}
  select format('index %s', r.label) as object, p.property, p.value
    from relations r join pg_index i on i.indexrelid = r.oid,
         lateral (values ('definition', pg_get_indexdef(r.oid)),
                         ('options', array_to_string(r.reloptions, ', ')),
                         ('invalid', case when not (i.indisvalid and i.indisready) then 'yes' end),
                         ('comment', obj_description(r.oid, 'pg_class'))) as p (property, value)`

const triggerRows = `
  with ${relations}
  select format('trigger %I on %s', t.tgname, r.label) as object, p.property, p.value
    from relations r join pg_trigger t on t.tgrelid = r.oid,
         lateral (values ('definition', pg_get_triggerdef(t.oid)),
                         ('enabled', t.tgenabled::text),
                         ('comment', obj_description(t.oid, 'pg_trigger'))) as p (property, value)
   where not t.tgisinternal`

/** Of a function that is generated from the queues there are, the body is not compared. */
const functionRows = `
  with functions as (
    select f.*, n.nspname, obj_description(f.oid, 'pg_proc') as note,
           format('%s %I.%I(%s)', case f.prokind when 'p' then 'procedure' else 'function' end,
                  n.nspname, f.proname, pg_get_function_identity_arguments(f.oid)) as label
      from pg_proc f join pg_namespace n on n.oid = f.pronamespace
     where n.nspname in ${schemas} and not (n.nspname = 'pgq' and f.proname ~ '^((event|trigger)_[0-9]+_|capture_[0-9]+(_update)?$)')
  )
  select f.label as object, p.property, p.value
    from functions f join pg_language l on l.oid = f.prolang,
         lateral (values
           ('arguments', pg_get_function_arguments(f.oid)),
           ('result', pg_get_function_result(f.oid)),
           ('attributes', concat_ws(' ', l.lanname,
                            case f.provolatile when 'i' then 'immutable' when 's' then 'stable' else 'volatile' end,
                            case when f.proisstrict then 'strict' end,
                            case when f.prosecdef then 'security definer' end,
                            case when f.proleakproof then 'leakproof' end,
                            case f.proparallel when 's' then 'parallel safe' when 'r' then 'parallel restricted' end,
                            'cost ' || f.procost, 'rows ' || f.prorows)),
           ('settings', array_to_string(f.proconfig, ', ')),
           ('body', case when f.note like 'skytools: generated%' then '(generated)' else f.prosrc end),
           ('comment', case when f.note like 'skytools: generated%' then 'skytools: generated' else f.note end),
           ('privileges', ${acl('f.proacl', `'f'`, 'f.proowner')})
         ) as p (property, value)`

const typeRows = `
  select format('type %I.%I', n.nspname, t.typname) as object, p.property, p.value
    from pg_type t join pg_namespace n on n.oid = t.typnamespace,
         lateral (values
           ('kind', t.typtype::text),
           ('labels', (select string_agg(quote_literal(e.enumlabel), ', ' order by e.enumsortorder)
                         from pg_enum e where e.enumtypid = t.oid)),
           ('base', case when t.typtype = 'd' then format_type(t.typbasetype, t.typtypmod) end),
           ('checks', (select string_agg(pg_get_constraintdef(k.oid), ', ' order by k.conname)
                         from pg_constraint k where k.contypid = t.oid and k.contype <> 'n')),
           ('comment', obj_description(t.oid, 'pg_type'))) as p (property, value)
   where n.nspname in ${schemas} and t.typtype in ('e', 'd', 'r')`

/** Memberships among the roles of pgq; an attribute that would let them do more than that. */
const roleRows = `
  select format('role %I', r.rolname) as object, p.property, p.value
    from pg_roles r,
         lateral (values
           ('attributes', concat_ws(' ', case when r.rolsuper then 'superuser' end, case when r.rolcanlogin then 'login' end,
                                    case when r.rolbypassrls then 'bypassrls' end)),
           ('member of', (select string_agg(distinct quote_ident(g.rolname), ', ')
                            from pg_auth_members m join pg_roles g on g.oid = m.roleid
                           where m.member = r.oid and g.rolname ~ '^pgq_(reader|writer|admin)$'))) as p (property, value)
   where r.rolname ~ '^pgq_(reader|writer|admin)$'`

export const catalogQueries: readonly CatalogQuery[] = [
  { kind: 'role', sql: roleRows },
  { kind: 'schema', sql: schemaRows },
  { kind: 'type', sql: typeRows },
  { kind: 'relation', sql: relationRows },
  { kind: 'column', sql: columnRows },
  { kind: 'constraint', sql: constraintRows },
  { kind: 'index', sql: indexRows },
  { kind: 'trigger', sql: triggerRows },
  { kind: 'function', sql: functionRows },
]
